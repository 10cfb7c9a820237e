/* A disk to be preloaded under a process: writes down what is asked of it, in order, and fails where it is told to.
 *
 * DISK_ROOT     only what lies in this folder is watched, and what is sent on sockets
 * DISK_LOG      records are appended to this file; read by tests/faults/disk/replay.py
 * DISK_CONTROL  a file of struct control that the test maps as well: after `fail_at` further calls one fails
 *
 * A sync is written down when it begins and when it ends: what is written in between need not have survived.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST_DESCRIPTORS 65536

enum { OPENED = 1, CLOSED, WRITTEN, TRUNCATED, SYNC_BEGINS, SYNC_ENDS, RENAMED, LINKED, REMOVED, FOLDER_MADE, SENT };

struct record {
    int32_t operation, descriptor, thread, path_bytes;
    int64_t offset, payload_bytes;
};

struct control {
    _Atomic int64_t fail_at; /* counted down; the call that takes it to 0 fails */
    _Atomic int64_t failed;  /* how many did */
    int32_t error;
};

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static int log_descriptor = -1;
static const char *root = "";
static struct control *control;
static char watched[MOST_DESCRIPTORS];

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("DISK_LOG");
    if (path)
        log_descriptor = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (getenv("DISK_ROOT"))
        root = getenv("DISK_ROOT");
    path = getenv("DISK_CONTROL");
    if (path) {
        int shared = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
        void *at = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
        control = at == MAP_FAILED ? NULL : at;
        syscall(SYS_close, shared);
    }
}

static int is_ours(const char *path)
{
    return path && *root && strncmp(path, root, strlen(root)) == 0;
}

static int is_watched(int descriptor)
{
    return descriptor >= 0 && descriptor < MOST_DESCRIPTORS && watched[descriptor];
}

/* Whether this call is the one that fails; errno is then set. */
static int fails(void)
{
    if (!control || atomic_load(&control->fail_at) <= 0 || atomic_fetch_sub(&control->fail_at, 1) != 1)
        return 0;
    atomic_fetch_add(&control->failed, 1);
    errno = control->error;
    return 1;
}

/* Append a record. The caller holds `order`. The path may be two, with a zero byte between them. */
static void note(int operation, int descriptor, int64_t offset, const char *path, size_t path_bytes,
                 const struct iovec *payload, int pieces)
{
    struct iovec all[16];
    struct record record = {operation, descriptor, (int32_t)syscall(SYS_gettid), (int32_t)path_bytes, offset, 0};
    int saved = errno, count = 2;
    if (log_descriptor < 0)
        return;
    for (int i = 0; i < pieces && count < 16; i++) {
        all[count++] = payload[i];
        record.payload_bytes += (int64_t)payload[i].iov_len;
    }
    all[0] = (struct iovec){&record, sizeof record};
    all[1] = (struct iovec){(void *)path, path_bytes};
    if (syscall(SYS_writev, log_descriptor, all, count) < 0)
        abort(); /* a record that is missing would prove anything */
    errno = saved;
}

static void note_paths(int operation, const char *from, const char *to)
{
    char both[8192];
    size_t first = strlen(from) + 1, second = strlen(to);
    if (first + second > sizeof both)
        abort();
    memcpy(both, from, first);
    memcpy(both + first, to, second);
    note(operation, -1, 0, both, first + second, NULL, 0);
}

static int opened(int descriptor, const char *path, int flags)
{
    if (descriptor >= 0 && descriptor < MOST_DESCRIPTORS && is_ours(path)) {
        watched[descriptor] = 1;
        note(OPENED, descriptor, flags & O_TRUNC ? 1 : 0, path, strlen(path), NULL, 0);
    }
    return descriptor;
}

static int may_open(const char *path, int flags)
{
    return !(flags & O_CREAT && is_ours(path) && fails());
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode_t mode = va_arg(more, mode_t);                                                                            \
        va_end(more);                                                                                                  \
        if (!may_open(path, flags))                                                                                    \
            return -1;                                                                                                 \
        pthread_mutex_lock(&order);                                                                                    \
        int descriptor = opened(REAL(name)(path, flags, mode), path, flags);                                           \
        pthread_mutex_unlock(&order);                                                                                  \
        return descriptor;                                                                                             \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                                                   \
    int name(int folder, const char *path, int flags, ...)                                                             \
    {                                                                                                                  \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode_t mode = va_arg(more, mode_t);                                                                            \
        va_end(more);                                                                                                  \
        if (!may_open(path, flags))                                                                                    \
            return -1;                                                                                                 \
        pthread_mutex_lock(&order);                                                                                    \
        int descriptor = opened(REAL(name)(folder, path, flags, mode), path, flags);                                   \
        pthread_mutex_unlock(&order);                                                                                  \
        return descriptor;                                                                                             \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int descriptor)
{
    pthread_mutex_lock(&order);
    if (is_watched(descriptor)) {
        watched[descriptor] = 0;
        note(CLOSED, descriptor, 0, NULL, 0, NULL, 0);
    }
    int result = REAL(close)(descriptor);
    pthread_mutex_unlock(&order);
    return result;
}

static ssize_t written(int descriptor, const struct iovec *pieces, int count, off_t offset)
{
    if (fails())
        return -1;
    pthread_mutex_lock(&order);
    off_t at = offset >= 0 ? offset : lseek(descriptor, 0, SEEK_CUR);
    ssize_t result = offset >= 0 ? REAL(pwritev)(descriptor, pieces, count, offset)
                                 : REAL(writev)(descriptor, pieces, count);
    /* A regular file takes all or fails; a short write would need the pieces cut. */
    size_t whole = 0;
    for (int i = 0; i < count; i++)
        whole += pieces[i].iov_len;
    if (result >= 0 && (size_t)result != whole)
        abort();
    if (result >= 0)
        note(WRITTEN, descriptor, at, NULL, 0, pieces, count);
    pthread_mutex_unlock(&order);
    return result;
}

ssize_t write(int descriptor, const void *data, size_t size)
{
    struct iovec piece = {(void *)data, size};
    return is_watched(descriptor) ? written(descriptor, &piece, 1, -1) : REAL(write)(descriptor, data, size);
}

ssize_t writev(int descriptor, const struct iovec *pieces, int count)
{
    return is_watched(descriptor) ? written(descriptor, pieces, count, -1) : REAL(writev)(descriptor, pieces, count);
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset)
{
    struct iovec piece = {(void *)data, size};
    return is_watched(descriptor) ? written(descriptor, &piece, 1, offset) : REAL(pwrite)(descriptor, data, size, offset);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset)
{
    return pwrite(descriptor, data, size, offset);
}

static int truncated(int descriptor, off_t size)
{
    if (is_watched(descriptor) && fails())
        return -1;
    pthread_mutex_lock(&order);
    int result = (int)syscall(SYS_ftruncate, descriptor, size);
    if (result == 0 && is_watched(descriptor))
        note(TRUNCATED, descriptor, size, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&order);
    return result;
}

int ftruncate(int descriptor, off_t size) { return truncated(descriptor, size); }
int ftruncate64(int descriptor, off64_t size) { return truncated(descriptor, size); }

static int synced(int descriptor, long call)
{
    int ours = is_watched(descriptor);
    if (ours && fails())
        return -1;
    if (ours) {
        pthread_mutex_lock(&order);
        note(SYNC_BEGINS, descriptor, 0, NULL, 0, NULL, 0);
        pthread_mutex_unlock(&order);
    }
    int result = (int)syscall(call, descriptor);
    if (ours && result == 0) {
        pthread_mutex_lock(&order);
        note(SYNC_ENDS, descriptor, 0, NULL, 0, NULL, 0);
        pthread_mutex_unlock(&order);
    }
    return result;
}

int fsync(int descriptor) { return synced(descriptor, SYS_fsync); }
int fdatasync(int descriptor) { return synced(descriptor, SYS_fdatasync); }

int rename(const char *from, const char *to)
{
    if (is_ours(to) && fails())
        return -1;
    pthread_mutex_lock(&order);
    int result = REAL(rename)(from, to);
    if (result == 0 && is_ours(to))
        note_paths(RENAMED, from, to);
    pthread_mutex_unlock(&order);
    return result;
}

int link(const char *from, const char *to)
{
    pthread_mutex_lock(&order);
    int result = REAL(link)(from, to);
    if (result == 0 && is_ours(to))
        note_paths(LINKED, from, to);
    pthread_mutex_unlock(&order);
    return result;
}

int unlink(const char *path)
{
    pthread_mutex_lock(&order);
    int result = REAL(unlink)(path);
    if (result == 0 && is_ours(path))
        note(REMOVED, -1, 0, path, strlen(path), NULL, 0);
    pthread_mutex_unlock(&order);
    return result;
}

int mkdir(const char *path, mode_t mode)
{
    if (is_ours(path) && fails())
        return -1;
    pthread_mutex_lock(&order);
    int result = REAL(mkdir)(path, mode);
    if (result == 0 && is_ours(path))
        note(FOLDER_MADE, -1, 0, path, strlen(path), NULL, 0);
    pthread_mutex_unlock(&order);
    return result;
}

ssize_t send(int descriptor, const void *data, size_t size, int flags)
{
    struct iovec piece = {(void *)data, size};
    pthread_mutex_lock(&order);
    note(SENT, descriptor, 0, NULL, 0, &piece, 1); /* before the peer can know it */
    pthread_mutex_unlock(&order);
    return REAL(send)(descriptor, data, size, flags);
}
