/* Preloaded into OpenNTPD, this makes its waiting shorter and tells it that the
   clock was set when it was not. The time it serves is the clock's. */
#include <poll.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>

#define TIMES 50

long syscall(long, ...);

int clock_gettime(clockid_t id, struct timespec *t)
{
	if (syscall(SYS_clock_gettime, id, t))
		return -1;
	if (id == CLOCK_MONOTONIC) {
		long long ns = (t->tv_sec * 1000000000LL + t->tv_nsec) * TIMES;
		t->tv_sec = ns / 1000000000;
		t->tv_nsec = ns % 1000000000;
	}
	return 0;
}

int poll(struct pollfd *fds, nfds_t n, int ms)
{
	long long ns = ms * (1000000LL / TIMES);
	struct timespec t = {ns / 1000000000, ns % 1000000000};
	return syscall(SYS_ppoll, fds, n, ms < 0 ? 0 : &t, 0, 0);
}

int adjtime(const struct timeval *delta, struct timeval *old)
{
	if (old)
		old->tv_sec = old->tv_usec = 0;
	return 0;
}

int adjtimex(struct timex *t)
{
	return 0;
}

int settimeofday(const struct timeval *t, const struct timezone *z)
{
	return 0;
}
