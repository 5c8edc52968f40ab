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

// Conn is a connection, as far as a Table looks at it.
type Conn interface {
	comparable
	RemoteAddr() net.Addr
}

// Table holds the open connections and knows which is the next to lose its
// place: first those that have been served and only wait for the peer to hang
// up, then, of the prefix that holds most places, the oldest. A flood from one
// prefix so pushes out its own, and without a flood it is the oldest of all. It
// is safe for concurrent use.
type Table[C Conn] struct {
	max int

	mu     sync.Mutex
	last   uint64 // number of the newest connection
	at     map[C]*place[C]
	served list.List // of C, oldest first
	shares map[netip.Prefix]*share[C]
	order  byWeight[C] // the shares, the heaviest first
}

// place is where a connection stands: in its share's list, or among the served.
type place[C Conn] struct {
	share   *share[C] // nil once served
	element *list.Element
}

// share is what one prefix holds.
type share[C Conn] struct {
	prefix netip.Prefix
	conns  list.List // of numbered, oldest first
	index  int       // in order
}

// numbered is a connection and its age.
type numbered[C Conn] struct {
	conn   C
	number uint64
}

// NewTable makes a Table for as many connections as limit says.
func NewTable[C Conn](limit int) *Table[C] {
	return &Table[C]{max: limit, at: make(map[C]*place[C]), shares: make(map[netip.Prefix]*share[C])}
}

// Add enters c and, when that is one too many, takes out and returns the
// connection that has to make room; the zero value when none has.
func (t *Table[C]) Add(c C) (evicted C) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.at) >= t.max {
		evicted = t.next()
		t.drop(evicted)
	}
	t.last++
	prefix := prefixOf(c.RemoteAddr())
	s := t.shares[prefix]
	if s == nil {
		s = &share[C]{prefix: prefix}
		t.shares[prefix] = s
		s.conns.PushBack(numbered[C]{c, t.last})
		heap.Push(&t.order, s)
	} else {
		s.conns.PushBack(numbered[C]{c, t.last})
		heap.Fix(&t.order, s.index)
	}
	t.at[c] = &place[C]{s, s.conns.Back()}
	return evicted
}

// next is who loses its place.
func (t *Table[C]) next() C {
	if e := t.served.Front(); e != nil {
		return e.Value.(C)
	}
	return t.order[0].conns.Front().Value.(numbered[C]).conn
}

// Finished marks c as served. Evicting it no longer costs anybody anything.
func (t *Table[C]) Finished(c C) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.drop(c) {
		t.at[c] = &place[C]{element: t.served.PushBack(c)}
	}
}

// Remove takes c out. It does nothing for one that was evicted.
func (t *Table[C]) Remove(c C) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(c)
}

func (t *Table[C]) drop(c C) bool {
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

// prefixOf is the prefix an address is in; what is none is in one of its own.
func prefixOf(from net.Addr) netip.Prefix {
	tcp, ok := from.(*net.TCPAddr)
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
type byWeight[C Conn] []*share[C]

func (w byWeight[C]) Len() int { return len(w) }

func (w byWeight[C]) Less(i, j int) bool {
	if a, b := w[i].conns.Len(), w[j].conns.Len(); a != b {
		return a > b
	}
	return w[i].oldest() < w[j].oldest()
}

func (s *share[C]) oldest() uint64 { return s.conns.Front().Value.(numbered[C]).number }

func (w byWeight[C]) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].index, w[j].index = i, j
}

// Push and Pop are for container/heap.
func (w *byWeight[C]) Push(x any) {
	s := x.(*share[C])
	s.index = len(*w)
	*w = append(*w, s)
}

func (w *byWeight[C]) Pop() any {
	last := len(*w) - 1
	s := (*w)[last]
	(*w)[last] = nil
	*w = (*w)[:last]
	return s
}
