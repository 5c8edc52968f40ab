package tcp

import (
	"container/heap"
	"container/list"
	"net"
	"net/netip"
	"sync"
)

// One sender has at least these bits of address to itself, and what it holds is
// counted by them.
const (
	prefixBits4 = 24
	prefixBits6 = 56
)

// table holds the open connections and knows which is the next to lose its
// place: first those that have been served and only wait for the peer to hang
// up, then, of the prefix that holds most places, the oldest. A flood from one
// prefix so pushes out its own, and without a flood it is the oldest of all.
type table struct {
	max int

	mu     sync.Mutex
	last   uint64 // number of the newest connection
	at     map[*conn]*place
	served list.List // of *conn, oldest first
	shares map[netip.Prefix]*share
	order  byWeight // the shares, the heaviest first
}

// place is where a connection stands: in its share's list, or among the served.
type place struct {
	share   *share // nil once served
	element *list.Element
}

// share is what one prefix holds.
type share struct {
	prefix netip.Prefix
	conns  list.List // of numbered, oldest first
	index  int       // in order
}

// numbered is a connection and its age.
type numbered struct {
	conn   *conn
	number uint64
}

func newTable(limit int) *table {
	return &table{max: limit, at: make(map[*conn]*place), shares: make(map[netip.Prefix]*share)}
}

// add enters c and, when that is one too many, takes out and returns the
// connection that has to make room.
func (t *table) add(c *conn) (evicted *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.at) >= t.max {
		evicted = t.next()
		t.drop(evicted)
	}
	t.last++
	prefix := prefixOf(c)
	s := t.shares[prefix]
	if s == nil {
		s = &share{prefix: prefix}
		t.shares[prefix] = s
		s.conns.PushBack(numbered{c, t.last})
		heap.Push(&t.order, s)
	} else {
		s.conns.PushBack(numbered{c, t.last})
		heap.Fix(&t.order, s.index)
	}
	t.at[c] = &place{s, s.conns.Back()}
	return evicted
}

// next is who loses its place.
func (t *table) next() *conn {
	if e := t.served.Front(); e != nil {
		return e.Value.(*conn)
	}
	return t.order[0].conns.Front().Value.(numbered).conn
}

// finished marks c as served. Evicting it no longer costs anybody anything.
func (t *table) finished(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.drop(c) {
		t.at[c] = &place{element: t.served.PushBack(c)}
	}
}

// remove takes c out. It does nothing for one that was evicted.
func (t *table) remove(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(c)
}

func (t *table) drop(c *conn) bool {
	p := t.at[c]
	if p == nil {
		return false
	}
	delete(t.at, c)
	s := p.share
	if s == nil {
		t.served.Remove(p.element)
		return true
	}
	if s.conns.Len() == 1 {
		heap.Remove(&t.order, s.index)
		delete(t.shares, s.prefix)
		return true
	}
	s.conns.Remove(p.element)
	heap.Fix(&t.order, s.index)
	return true
}

// prefixOf is the prefix c comes from; what has no address comes from one.
func prefixOf(c *conn) netip.Prefix {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	a, bits := tcp.AddrPort().Addr().Unmap().WithZone(""), prefixBits6
	if a.Is4() {
		bits = prefixBits4
	}
	prefix, _ := a.Prefix(bits) // the zero Prefix for no address at all
	return prefix
}

// byWeight is a heap: the share with most connections comes first, and among
// equals the one with the oldest.
type byWeight []*share

func (w byWeight) Len() int { return len(w) }

func (w byWeight) Less(i, j int) bool {
	if a, b := w[i].conns.Len(), w[j].conns.Len(); a != b {
		return a > b
	}
	return w[i].oldest() < w[j].oldest()
}

func (s *share) oldest() uint64 { return s.conns.Front().Value.(numbered).number }

func (w byWeight) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].index, w[j].index = i, j
}

// Push and Pop are for container/heap.
func (w *byWeight) Push(x any) {
	s := x.(*share)
	s.index = len(*w)
	*w = append(*w, s)
}

func (w *byWeight) Pop() any {
	last := len(*w) - 1
	s := (*w)[last]
	(*w)[last] = nil
	*w = (*w)[:last]
	return s
}
