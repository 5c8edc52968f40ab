package agent

import (
	"container/list"
	"net"
	"sync"
)

// A crowd is a listener that keeps at most max of its connections open. When
// one more comes the oldest goes: a limit that keeps newcomers waiting would let
// anybody with max idle connections keep a CA's validators out.
type crowd struct {
	net.Listener
	max int

	mu    sync.Mutex
	order list.List // of *guest, oldest first
}

// guest is a connection that leaves the crowd when it closes.
type guest struct {
	net.Conn
	crowd *crowd
	place *list.Element
}

func newCrowd(l net.Listener, limit int) *crowd { return &crowd{Listener: l, max: limit} }

func (c *crowd) Accept() (net.Conn, error) {
	nc, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g := &guest{Conn: nc, crowd: c}
	if oldest := c.enter(g); oldest != nil {
		_ = oldest.Close()
	}
	return g, nil
}

func (c *crowd) enter(g *guest) (oldest *guest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.order.Len() >= c.max {
		oldest = c.order.Front().Value.(*guest)
	}
	g.place = c.order.PushBack(g)
	return oldest
}

func (g *guest) Close() error {
	g.crowd.mu.Lock()
	g.crowd.order.Remove(g.place) // nothing the second time
	g.crowd.mu.Unlock()
	return g.Conn.Close()
}
