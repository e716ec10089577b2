/* Preloaded into a daemon, it moves the wall clock by the seconds in the file WRONG_CLOCK names, read at each
   look: rewriting the file is a jump. Monotonic time stays, as it does when a kernel's clock is set. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long long off_ns(void) {
    char text[32] = {0};
    int fd = open(getenv("WRONG_CLOCK"), O_RDONLY | O_CLOEXEC);
    if (fd < 0) abort();
    if (read(fd, text, sizeof text - 1) < 1) abort();
    close(fd);
    return (long long)(atof(text) * 1e9);
}

static long long now_ns(void) {
    static int (*real)(clockid_t, struct timespec *);
    struct timespec t;
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    real(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec + off_ns();
}

int clock_gettime(clockid_t clock, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    if (clock != CLOCK_REALTIME) return real(clock, t);
    long long ns = now_ns();
    t->tv_sec = ns / 1000000000LL;
    t->tv_nsec = ns % 1000000000LL;
    return 0;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    (void)zone;
    long long ns = now_ns();
    t->tv_sec = ns / 1000000000LL;
    t->tv_usec = ns / 1000 % 1000000;
    return 0;
}

time_t time(time_t *t) {
    time_t s = now_ns() / 1000000000LL;
    if (t) *t = s;
    return s;
}
