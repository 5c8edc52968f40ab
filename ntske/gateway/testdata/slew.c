// Loaded before OpenNTPD for tests: it runs without root, on ports of the test's choice, a hundred times as fast,
// cannot touch the clock, and finds of adjtime(2) what the test has written as outstanding.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pwd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { speed = 100 };

// What the test writes: nanoseconds outstanding when CLOCK_MONOTONIC shows start. 500 ppm are worked off.
static volatile struct { int64_t start, outstanding; } *slew;

__attribute__((constructor)) static void load(void)
{
	int fd = open(getenv("SLEW_FILE"), O_RDONLY | O_CLOEXEC);
	void *p = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *slew, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		abort();
	slew = p;
	close(fd);
}

static int64_t monotonic(void)
{
	struct timespec t;
	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

int adjtime(const struct timeval *delta, struct timeval *old)
{
	if (old == NULL)
		return 0;
	memset(old, 0, sizeof *old);
	if (delta != NULL)
		return 0; // nothing is left of the adjustment before: it counts as synchronised
	int64_t left = slew->outstanding, done = (monotonic() - slew->start) / 2000;
	if (done < 0)
		left = 0;
	else if (left > 0)
		left = left > done ? left - done : 0;
	else
		left = -left > done ? left + done : 0;
	left /= 1000; // microseconds, as Linux tells them
	old->tv_sec = left / 1000000;
	old->tv_usec = left % 1000000;
	return 0;
}

int adjtimex(struct timex *t) { t->freq = 0; return TIME_OK; }
int settimeofday(const struct timeval *t, const struct timezone *z) { return 0; }

int clock_gettime(clockid_t id, struct timespec *t)
{
	if (id != CLOCK_MONOTONIC)
		return syscall(SYS_clock_gettime, id, t);
	unsigned __int128 n = (unsigned __int128)monotonic() * speed;
	t->tv_sec = n / 1000000000;
	t->tv_nsec = n % 1000000000;
	return 0;
}

int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	struct timespec t = {timeout / (1000 * speed), timeout % (1000 * speed) * (1000000 / speed)};
	return syscall(SYS_ppoll, fds, n, timeout < 0 ? NULL : &t, NULL, 0);
}

static struct sockaddr_in moved(const struct sockaddr *a, const char *port)
{
	struct sockaddr_in in = *(const struct sockaddr_in *)a;
	if (in.sin_port == htons(123))
		in.sin_port = htons(atoi(getenv(port)));
	return in;
}

int bind(int fd, const struct sockaddr *a, socklen_t n)
{
	if (a->sa_family != AF_INET) // the socket of ntpctl: anywhere but where the host's daemon has its own
		return syscall(SYS_bind, fd, a, sizeof a->sa_family);
	struct sockaddr_in in = moved(a, "SLEW_PORT");
	return syscall(SYS_bind, fd, &in, sizeof in);
}

int connect(int fd, const struct sockaddr *a, socklen_t n)
{
	if (a->sa_family != AF_INET)
		return syscall(SYS_connect, fd, a, n);
	struct sockaddr_in in = moved(a, "SLEW_SOURCE");
	return syscall(SYS_connect, fd, &in, sizeof in);
}

int execvp(const char *file, char *const argv[])
{
	char *all[64] = {getenv("SLEW_LOADER"), "--preload", getenv("SLEW_SHIM"), "--library-path", getenv("SLEW_LIBRARIES"), "--argv0", argv[0], getenv("SLEW_PROGRAM")};
	for (int i = 1; i < 40 && argv[i - 1] != NULL; i++)
		all[7 + i] = argv[i];
	return execv(all[0], all);
}

struct passwd *getpwnam(const char *name)
{
	static struct passwd p;
	p.pw_name = (char *)name;
	p.pw_dir = p.pw_shell = "/";
	p.pw_uid = getuid();
	p.pw_gid = getgid();
	return &p;
}

FILE *fopen(const char *path, const char *mode)
{
	if (*mode != 'r' || strncmp(path, "/var/", 5) == 0) { // the drift file of the host's daemon
		errno = ENOENT;
		return NULL;
	}
	int fd = open(path, O_RDONLY);
	return fd < 0 ? NULL : fdopen(fd, mode);
}

int chmod(const char *path, mode_t mode) { return 0; }
int unlink(const char *path) { return 0; }
uid_t geteuid(void) { return 0; }
int chroot(const char *path) { return 0; }
int setresuid(uid_t a, uid_t b, uid_t c) { return 0; }
int setresgid(gid_t a, gid_t b, gid_t c) { return 0; }
int setgroups(size_t n, const gid_t *g) { return 0; }
