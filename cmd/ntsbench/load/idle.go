package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Kind is how far a connection gets before its client falls silent.
type Kind int

// The kinds of idle connections.
const (
	TCP       Kind = iota // connected
	HalfHello             // half a ClientHello sent
	Finished              // TLS handshake finished, and no request
)

// Kinds are all of them.
var Kinds = []Kind{TCP, HalfHello, Finished}

// String returns the kind's name in tables and on command lines.
func (k Kind) String() string { return [...]string{"tcp", "half-hello", "finished"}[k] }

// ParseKind returns the kind with that name.
func ParseKind(s string) (Kind, error) {
	for _, k := range Kinds {
		if k.String() == s {
			return k, nil
		}
	}
	return 0, fmt.Errorf("%q is no kind of idle connection: use tcp, half-hello or finished", s)
}

// opening is how many connections are being opened at a time.
const opening = 64

// Idle are connections whose clients have fallen silent.
type Idle struct {
	Refused  int   // not opened: the server ended them on the way
	FirstErr error // why the first of those was not

	conns   []net.Conn
	opened  []time.Time
	lives   []time.Duration // 0: still open; each belongs to its watcher until it is gone
	mu      sync.Mutex      // guards lives, closing
	closing bool
	gone    sync.WaitGroup // the watchers
}

// Hold opens n connections of the kind and watches each. Those the server
// refuses are counted; what this machine cannot do is an error. The caller must
// Close what it gets.
func Hold(ctx context.Context, t KETarget, kind Kind, n int) (*Idle, error) {
	half, err := halfHello(t)
	if err != nil {
		return nil, err
	}
	idle := new(Idle)
	var first error // of this machine
	var mu sync.Mutex
	var openers sync.WaitGroup
	next := make(chan struct{}, n)
	for range n {
		next <- struct{}{}
	}
	close(next)
	for range min(opening, n) {
		openers.Go(func() {
			for range next {
				nc, begin, err := open(ctx, t, kind, half)
				mu.Lock()
				switch {
				case err == nil:
					idle.watch(nc, begin)
				case first != nil:
				case ctx.Err() != nil:
					first = ctx.Err()
				case localShortage(err):
					first = fmt.Errorf("hold %d connections: %w", n, err)
				default:
					idle.Refused++
					if idle.FirstErr == nil {
						idle.FirstErr = err
					}
				}
				stop := first != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	openers.Wait()
	if first != nil {
		idle.Close()
		return nil, first
	}
	return idle, nil
}

// localShortage says whether a connection was not opened for want of something
// on this machine, which is not the server's doing.
func localShortage(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.EADDRNOTAVAIL) ||
		errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}

// open brings one connection to where it falls silent. Its life is counted from
// when TCP was connected.
func open(ctx context.Context, t KETarget, kind Kind, half []byte) (net.Conn, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, t.timeout())
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", t.Addr.String())
	if err != nil {
		return nil, time.Time{}, err
	}
	begin := time.Now()
	switch kind {
	case HalfHello:
		_, err = nc.Write(half)
	case Finished:
		err = tls.Client(nc, t.tlsConfig()).HandshakeContext(ctx)
	}
	if err != nil {
		nc.Close()
		return nil, time.Time{}, err
	}
	return nc, begin, nil
}

// watch reads until the connection ends. It is called by one at a time.
func (i *Idle) watch(nc net.Conn, begin time.Time) {
	at := len(i.conns)
	i.conns, i.opened = append(i.conns, nc), append(i.opened, begin)
	i.mu.Lock()
	i.lives = append(i.lives, 0)
	i.mu.Unlock()
	i.gone.Go(func() {
		var scrap [64]byte // of alerts and tickets
		for {
			if _, err := nc.Read(scrap[:]); err != nil {
				break
			}
		}
		end := time.Now()
		i.mu.Lock()
		defer i.mu.Unlock()
		if !i.closing {
			i.lives[at] = max(end.Sub(begin), 1)
		}
	})
}

// Opened is how many connections were opened.
func (i *Idle) Opened() int { return len(i.conns) }

// Open is how many of them the server has not closed yet.
func (i *Idle) Open() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := 0
	for _, life := range i.lives {
		if life == 0 {
			n++
		}
	}
	return n
}

// Gone waits until the server has closed all connections and returns how long
// the longest was open, from when it was connected. A ctx that ends first, or
// connections that are left after most, are an error.
func (i *Idle) Gone(ctx context.Context, most time.Duration) (longest time.Duration, err error) {
	all := make(chan struct{})
	go func() { i.gone.Wait(); close(all) }()
	timeout := time.NewTimer(most)
	defer timeout.Stop()
	select {
	case <-all:
	case <-timeout.C:
		return 0, fmt.Errorf("%d of %d idle connections are still open after %v", i.Open(), i.Opened(), most)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, life := range i.lives {
		longest = max(longest, life)
	}
	return longest, nil
}

// Close ends what is still open and waits for the watchers.
func (i *Idle) Close() {
	i.mu.Lock()
	i.closing = true
	i.mu.Unlock()
	for _, nc := range i.conns {
		nc.Close()
	}
	i.gone.Wait()
}

// Probes are whole sessions of new clients, one after another.
type Probes struct {
	Served, Of int
	Slowest    time.Duration // of those served
	FirstErr   error         // why the first of the others was not
}

// Probe lets n new clients do one verified NTS-KE session each, of at most the
// given time.
func Probe(ctx context.Context, t KETarget, n int, most time.Duration) Probes {
	p := Probes{Of: n}
	for range n {
		limited, cancel := context.WithTimeout(ctx, most)
		begin := time.Now()
		err := t.session(limited)
		took := time.Since(begin)
		cancel()
		if err == nil {
			p.Served++
			p.Slowest = max(p.Slowest, took)
		} else if p.FirstErr == nil {
			p.FirstErr = err
		}
	}
	return p
}

// halfHello is the first half of the ClientHello our sessions begin with.
func halfHello(t KETarget) ([]byte, error) {
	catch := new(catcher)
	tls.Client(catch, t.tlsConfig()).Handshake() // ends with the first read
	if len(catch.first) < 2 {
		return nil, errors.New("make half a ClientHello: crypto/tls wrote none")
	}
	return catch.first[:len(catch.first)/2], nil
}

// catcher keeps what is written first and answers with the end. Nothing else of
// it is called.
type catcher struct {
	net.Conn
	first []byte
}

func (c *catcher) Read([]byte) (int, error) { return 0, io.EOF }

func (c *catcher) Write(b []byte) (int, error) {
	if c.first == nil {
		c.first = append(c.first, b...)
	}
	return len(b), nil
}

func (c *catcher) Close() error { return os.ErrClosed }

func (c *catcher) SetWriteDeadline(time.Time) error { return nil }
