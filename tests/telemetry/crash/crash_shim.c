/* Preloaded into a process: writes down, in order, all it does to files under CRASH_DIR.
 *
 * CRASH_LOG gets one record for each: kind, length of the path, path, offset (8), length of the data (4), data.
 * Kinds: C created, W written, T cut to `offset`, S synced, D directory synced, R renamed (data is the new path),
 * U unlinked. What is mapped (SQLite's -shm) is not seen: it does not outlive a crash. With CRASH_AT=n the process
 * dies before its n-th record.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FDS 1024
static char paths[FDS][256], root[200];
static int sink = -1;
static long left = -1;

#define REAL(name) __typeof__(name) *real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
    const char *dir = getenv("CRASH_DIR"), *log = getenv("CRASH_LOG"), *at = getenv("CRASH_AT");
    if (!dir || !log)
        return;
    snprintf(root, sizeof root, "%s", dir);
    sink = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    left = at ? atol(at) : -1;
}

static int ours(const char *path) {
    size_t n = strlen(root), m = path ? strlen(path) : 0;
    return sink >= 0 && n && m >= n && m < 256 && !strncmp(path, root, n) && !strstr(path, "-shm") && !strstr(path, ".reserve");
}

static const char *of(int fd) { return fd >= 0 && fd < FDS && paths[fd][0] ? paths[fd] : NULL; }

static void gate(void) {
    if (left > 0 && --left == 0)
        syscall(SYS_kill, getpid(), SIGKILL);
}

static void say(char kind, const char *path, uint64_t offset, const void *data, uint32_t length) {
    uint8_t n = (uint8_t)strlen(path);
    size_t size = 2 + n + 12 + length;
    char *record = malloc(size), *p = record;
    *p++ = kind, *p++ = (char)n;
    memcpy(p, path, n), p += n;
    memcpy(p, &offset, 8), p += 8;
    memcpy(p, &length, 4), p += 4;
    memcpy(p, data, length);
    if (syscall(SYS_write, sink, record, size) != (long)size)
        abort();
    free(record);
}

static int opened(const char *path, int flags, mode_t mode) {
    struct stat found;
    int mine = ours(path), is_new = mine && (flags & O_CREAT) && stat(path, &found);
    if (is_new)
        gate();
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd < 0)
        return -1;
    if (fd < FDS)
        snprintf(paths[fd], sizeof paths[fd], "%s", mine ? path : "");
    if (is_new)
        say('C', path, 0, "", 0);
    return fd;
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = (flags & O_CREAT) ? va_arg(rest, mode_t) : 0;                                                    \
        va_end(rest);                                                                                                  \
        return opened(path, flags, mode);                                                                              \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    REAL(close);
    if (fd >= 0 && fd < FDS)
        paths[fd][0] = 0;
    return real(fd);
}

static ssize_t written(int fd, const void *data, size_t length, off_t offset, ssize_t done) {
    (void)length;
    if (done > 0)
        say('W', of(fd), (uint64_t)offset, data, (uint32_t)done);
    return done;
}

ssize_t write(int fd, const void *data, size_t length) {
    REAL(write);
    if (!of(fd))
        return real(fd, data, length);
    gate();
    off_t offset = lseek(fd, 0, (fcntl(fd, F_GETFL) & O_APPEND) ? SEEK_END : SEEK_CUR);
    return written(fd, data, length, offset, real(fd, data, length));
}

#define PWRITE(name, type)                                                                                             \
    ssize_t name(int fd, const void *data, size_t length, type offset) {                                               \
        REAL(name);                                                                                                    \
        if (!of(fd))                                                                                                   \
            return real(fd, data, length, offset);                                                                     \
        gate();                                                                                                        \
        return written(fd, data, length, offset, real(fd, data, length, offset));                                      \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define CUT(name, type)                                                                                                \
    int name(int fd, type length) {                                                                                    \
        REAL(name);                                                                                                    \
        if (!of(fd))                                                                                                   \
            return real(fd, length);                                                                                   \
        gate();                                                                                                        \
        int result = real(fd, length);                                                                                 \
        if (!result)                                                                                                   \
            say('T', of(fd), (uint64_t)length, "", 0);                                                                 \
        return result;                                                                                                 \
    }
CUT(ftruncate, off_t)
CUT(ftruncate64, off64_t)

#define SYNC(name)                                                                                                     \
    int name(int fd) {                                                                                                 \
        REAL(name);                                                                                                    \
        struct stat found;                                                                                             \
        if (!of(fd))                                                                                                   \
            return real(fd);                                                                                           \
        gate();                                                                                                        \
        say(!fstat(fd, &found) && S_ISDIR(found.st_mode) ? 'D' : 'S', of(fd), 0, "", 0);                               \
        return 0;                                                                                                      \
    }
SYNC(fsync)
SYNC(fdatasync)

int rename(const char *old, const char *new) {
    REAL(rename);
    if (!ours(old) || !ours(new))
        return real(old, new);
    gate();
    int result = real(old, new);
    if (!result)
        say('R', old, 0, new, (uint32_t)strlen(new));
    return result;
}

int unlink(const char *path) {
    REAL(unlink);
    if (!ours(path))
        return real(path);
    gate();
    int result = real(path);
    if (!result)
        say('U', path, 0, "", 0);
    return result;
}
