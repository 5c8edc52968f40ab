package tcp

import (
	"container/list"
	"sync"
)

// table holds the open connections, the one to lose its place first in front:
// those that have been served and only wait for the peer to hang up, then the
// oldest.
type table struct {
	max   int
	mu    sync.Mutex
	order list.List
	at    map[*conn]*list.Element
}

func newTable(limit int) *table {
	return &table{max: limit, at: make(map[*conn]*list.Element)}
}

// add enters c and, when that is one too many, takes out and returns the
// connection that has to make room.
func (t *table) add(c *conn) (evicted *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.at) >= t.max {
		evicted = t.order.Remove(t.order.Front()).(*conn)
		delete(t.at, evicted)
	}
	t.at[c] = t.order.PushBack(c)
	return evicted
}

// finished marks c as served. Evicting it no longer costs anybody anything.
func (t *table) finished(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.at[c]; e != nil {
		t.order.MoveToFront(e)
	}
}

// remove takes c out. It does nothing for one that was evicted.
func (t *table) remove(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.at[c]; e != nil {
		t.order.Remove(e)
		delete(t.at, c)
	}
}
