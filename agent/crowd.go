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
	max   int
	going *sync.WaitGroup // its connections

	mu    sync.Mutex
	order list.List // of *guest, oldest first
}

// guest is a connection that leaves the crowd when it closes.
type guest struct {
	net.Conn
	crowd *crowd
	place *list.Element
	leave sync.Once
}

func newCrowd(l net.Listener, limit int, going *sync.WaitGroup) *crowd {
	return &crowd{Listener: l, max: limit, going: going}
}

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
	c.going.Add(1)
	return oldest
}

// CloseWrite lets an http.Server finish its answer to who is still sending.
func (g *guest) CloseWrite() error { return g.Conn.(*net.TCPConn).CloseWrite() }

func (g *guest) Close() error {
	err := g.Conn.Close()
	g.leave.Do(func() {
		g.crowd.mu.Lock()
		defer g.crowd.mu.Unlock()
		g.crowd.order.Remove(g.place)
		g.crowd.going.Done()
	})
	return err
}
