package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// networkVerb is how the lab calls itself to run a daemon that insists on its
// ports: ntslab in-a-network-of-its-own PROGRAM ARG...
const networkVerb = "in-a-network-of-its-own"

// The files that process gets: sockets of the lab's network, one per family.
const (
	outside4 = 3 + iota
	outside6
)

// startInNetwork starts a program in a network namespace with nothing in it but a
// loopback device. What comes to the port it returns, of 127.0.0.1 and ::1, is
// relayed to UDP port 123 in there. The program is kept from the clock.
func startInNetwork(ctx context.Context, name string, program []string, logPath string) (*child, uint16, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, 0, fmt.Errorf("find this program: %w", err)
	}
	port, c4, c6, err := listenUDP(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer c4.Close() // the relay has them
	defer c6.Close()
	cmd := exec.Command(self, append([]string{networkVerb}, program...)...)
	for _, c := range []*net.UDPConn{c4, c6} {
		f, err := c.File()
		if err != nil {
			return nil, 0, fmt.Errorf("hand a socket to the relay of %s: %w", name, err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if me := os.Geteuid(); me != 0 { // then in a user namespace, where we are root
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: me, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	c, err := startChild(name, cmd, logPath)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EUSERS) {
		err = fmt.Errorf("%w: it needs a network namespace; run as root with CAP_SYS_ADMIN, or allow user namespaces, or choose another --daemon", err)
	}
	return c, port, err
}

// runInNetwork is the process that startInNetwork starts. It lives as long as
// the program, which ends with it.
func runInNetwork(ctx context.Context, program []string) error {
	if len(program) == 0 {
		return errors.New(networkVerb + " is for the lab itself: it needs a program")
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("bring up a loopback device: %w", err)
	}
	for fd, to := range map[uintptr]*net.UDPAddr{
		outside4: {IP: net.ParseIP(loopback4), Port: 123},
		outside6: {IP: net.ParseIP(loopback6), Port: 123},
	} {
		f := os.NewFile(fd, "socket")
		c, err := net.FilePacketConn(f)
		if err != nil {
			return fmt.Errorf("take over socket %d: %w", fd, err)
		}
		f.Close() // c is another descriptor of it
		go relay(c.(*net.UDPConn), to)
	}
	if err := holdTheClock(); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program[0], program[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = endsWithin - time.Second // less than the lab waits for us
	return cmd.Run()
}

// relay hands each datagram that comes to out on to the server, and its answer
// back. It goes on as long as the process.
func relay(out *net.UDPConn, server *net.UDPAddr) {
	const atOnce, answerWithin = 64, 2 * time.Second
	slots := make(chan struct{}, atOnce)
	for {
		b := make([]byte, 2048)
		n, from, err := out.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // about a datagram of ours that nobody took
		}
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			in, err := net.DialUDP("udp", nil, server)
			if err != nil {
				return // as a lost datagram
			}
			defer in.Close()
			_ = in.SetDeadline(time.Now().Add(answerWithin))
			_, _ = in.Write(b[:n])
			if n, err := in.Read(b); err == nil {
				_, _ = out.WriteToUDPAddrPort(b[:n], from)
			}
		}()
	}
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}
