package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
)

// A book holds the sockets that listen, by what they are for. It outlives a
// reload: an address that stays in the configuration keeps its socket, so that
// the kernel queues newcomers while the parts behind it are exchanged.
type book struct {
	mu    sync.Mutex
	rows  map[string]*page
	spare map[string]net.Listener // opened ahead by reserve
	given map[string][]*given     // by purpose, which then opens none of its own
}

// A page is the sockets of one purpose. Its addresses are those asked for;
// port is what the kernel chose for every entry that asked for port 0, and it
// is kept when the sockets are closed, so that they open again where they were.
type page struct {
	asked     []netip.AddrPort
	use       []netip.AddrPort // those of asked that are to be open
	port      uint16
	listeners []net.Listener
}

func newBook() *book { return &book{rows: map[string]*page{}, spare: map[string]net.Listener{}} }

// newBookOf makes a book with sockets of the service manager's.
func newBookOf(given map[string][]*given) *book {
	b := newBook()
	b.given = given
	for purpose := range given {
		b.rest(purpose)
	}
	return b
}

// open returns the sockets of purpose, opening them when they are not open or
// when the addresses asked for have changed. New sockets are open before old
// ones close; on an error the old ones stay as they were.
func (b *book) open(ctx context.Context, purpose string, asked []netip.AddrPort) ([]net.Listener, error) {
	return b.openSome(ctx, purpose, asked, asked)
}

// openSome is open for those addresses that are also in use.
func (b *book) openSome(ctx context.Context, purpose string, asked, use []netip.AddrPort) ([]net.Listener, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.rows[purpose]
	if old != nil && len(old.listeners) > 0 && slices.Equal(old.asked, asked) && slices.Equal(old.use, use) {
		return old.listeners, nil
	}
	next := &page{asked: asked, use: use}
	if given := b.given[purpose]; len(given) > 0 {
		next.take(given)
		b.rows[purpose] = next
		return next.listeners, nil
	}
	if old != nil && slices.Equal(old.asked, asked) {
		next.port = old.port
	}
	kept := map[string]net.Listener{}
	if old != nil {
		for _, l := range old.listeners {
			kept[l.Addr().String()] = l
		}
	}
	maps.Copy(kept, b.spare)
	if err := next.listen(ctx, kept); err != nil {
		return nil, err
	}
	for _, l := range next.listeners {
		delete(kept, l.Addr().String())
		delete(b.spare, l.Addr().String())
	}
	for a := range b.spare {
		delete(kept, a)
	}
	closeAll(kept)
	b.rows[purpose] = next
	return next.listeners, nil
}

// reserve opens those of the addresses that nothing of ours listens on yet, for
// an open that follows; release closes what was not needed. Port 0 can always
// be had and is left alone.
func (b *book) reserve(ctx context.Context, asked []netip.AddrPort) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	held := maps.Clone(b.spare)
	for _, p := range b.rows {
		for _, l := range p.listeners {
			held[l.Addr().String()] = l
		}
	}
	for _, given := range b.given {
		for _, g := range given {
			for _, a := range g.at {
				held[a.String()] = g
			}
		}
	}
	for _, a := range asked {
		if a.Port() == 0 || held[a.String()] != nil {
			continue
		}
		l, err := listenTCP(ctx, a)
		if err != nil && !(unavailable(err) && a.Addr().IsUnspecified()) {
			return err
		}
		if err == nil {
			b.spare[l.Addr().String()] = l
		}
	}
	return nil
}

func (b *book) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	closeAll(b.spare)
	clear(b.spare)
}

// close ends the sockets of purpose: from here on its clients are refused, or
// hung up on where a socket is given.
func (b *book) close(purpose string) {
	for _, l := range b.take(purpose) {
		_ = l.Close()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rest(purpose)
}

// rest has nobody served by the given sockets of purpose. The caller holds b.mu.
func (b *book) rest(purpose string) {
	for _, g := range b.given[purpose] {
		g.rest()
	}
}

// keep closes the sockets of all purposes but those that are wanted.
func (b *book) keep(want []wanted) {
	b.mu.Lock()
	purposes := slices.Collect(maps.Keys(b.rows))
	b.mu.Unlock()
	for _, purpose := range purposes {
		if !slices.ContainsFunc(want, func(w wanted) bool { return w.purpose == purpose }) {
			b.close(purpose)
		}
	}
}

// take takes the open sockets of purpose out. The caller closes them. Given ones
// are not for the caller: clients wait in them for the next process.
func (b *book) take(purpose string) []net.Listener {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.rows[purpose]
	if p == nil {
		return nil
	}
	open := p.listeners
	p.listeners = nil
	if len(b.given[purpose]) > 0 {
		return nil
	}
	return open
}

// addresses are where purpose listens now; empty when it does not.
func (b *book) addresses(purpose string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	if p := b.rows[purpose]; p != nil {
		for _, l := range p.listeners {
			out = append(out, l.Addr().String())
		}
	}
	return out
}

func (b *book) closeAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.rows {
		for _, l := range p.listeners {
			_ = l.Close()
		}
		p.listeners = nil
	}
	for _, given := range b.given {
		for _, g := range given {
			g.wake()
			_ = g.Close()
		}
	}
}

// portTries bounds the search for one port that is free on every address of a
// list that left the choice to the kernel.
const portTries = 32

// take serves those of the given sockets that are in use.
func (p *page) take(given []*given) {
	for _, g := range given {
		if l := g.serving(p.use); l != nil {
			g.wake()
			p.listeners = append(p.listeners, l)
			continue
		}
		g.rest()
	}
}

func (p *page) listen(ctx context.Context, kept map[string]net.Listener) error {
	for try := 1; ; try++ {
		chosen, err := p.listenOnce(ctx, kept)
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) || !chosen || try == portTries {
			return err
		}
	}
}

// listenOnce opens every address of the page. chosen tells that the kernel
// picked the port, so that another try may fare better.
func (p *page) listenOnce(ctx context.Context, kept map[string]net.Listener) (chosen bool, err error) {
	opened := map[string]net.Listener{}
	port := p.port
	var out []net.Listener
	var missing error
	for _, a := range p.use {
		free := a.Port() == 0
		if free {
			chosen = chosen || p.port == 0
			a = netip.AddrPortFrom(a.Addr(), port)
		}
		if l, ok := kept[a.String()]; ok {
			out = append(out, l)
			continue
		}
		l, err := listenTCP(ctx, a)
		if unavailable(err) && a.Addr().IsUnspecified() && len(p.asked) > 1 {
			missing = err // a host without IPv6 serves IPv4, and the other way round
			continue
		}
		if err != nil {
			closeAll(opened)
			return chosen, err
		}
		if free && port == 0 {
			port = uint16(l.Addr().(*net.TCPAddr).Port)
		}
		opened[l.Addr().String()] = l
		out = append(out, l)
	}
	if len(out) == 0 {
		return chosen, missing
	}
	p.port, p.listeners = port, out
	return chosen, nil
}

// listenTCP opens one address of one family: without the family in its name
// the network "tcp" would make [::] answer for IPv4 as well, and 0.0.0.0 beside
// it would find its port taken. The daemon may hold SO_REUSEPORT sockets, so
// that option is never set here: two processes must not share a port by chance.
// No connection lives long enough for keep-alive probes, so they are not set up,
// nor for a second path: multipath TCP would keep the server from ending gently.
func listenTCP(ctx context.Context, a netip.AddrPort) (net.Listener, error) {
	network := "tcp4"
	if a.Addr().Is6() && !a.Addr().Is4In6() {
		network = "tcp6"
	}
	conf := net.ListenConfig{KeepAlive: -1}
	conf.SetMultipathTCP(false)
	l, err := conf.Listen(ctx, network, a.String())
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w%s", a, err, listenHint(err))
	}
	return l, nil
}

func listenHint(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "; another program holds that port: `ss -ltnp` names it"
	case errors.Is(err, syscall.EACCES):
		return "; ports below 1024 need CAP_NET_BIND_SERVICE, or a .socket unit of systemd that opens them"
	}
	return ""
}

func unavailable(err error) bool {
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

func closeAll(m map[string]net.Listener) {
	for _, l := range m {
		_ = l.Close()
	}
}
