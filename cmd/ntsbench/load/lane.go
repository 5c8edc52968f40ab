package load

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"ntsagent/ntske/packet"
)

// Why a request or a datagram failed. The reasons of package packet come besides.
var (
	errSilent = errors.New("no reply in time")
	errStray  = errors.New("datagram answers no request in flight: a duplicate, or nobody asked")
	errUnsent = errors.New("request was due, but the window was full to the end")
	errLonger = errors.New("reply is longer than the request")
	errOrigin = errors.New("reply has another origin timestamp than the request's transmit timestamp")
	errHeader = errors.New("reply does not tell the time")
)

// dialect makes the requests of one socket and judges what comes back. Requests are numbered by the slot
// they fly in. reserve and ask are called by several goroutines, but for one request by one at a time;
// token and judge by one at a time.
type dialect interface {
	// reserve takes what request i needs; false if there is nothing to take now.
	reserve(i int) bool
	// ask appends request i, which carries token in a place that comes back.
	ask(dst []byte, i int, token uint64) []byte
	// token returns the token of the request that a datagram says it answers.
	token(reply []byte) (uint64, bool)
	// judge verifies all of the reply to request i, which was sent as asked. t2 and t3 are when the server
	// received and answered, 0 where nobody tells the time.
	judge(i int, asked, reply []byte) (t2, t3 packet.Timestamp, err error)
}

// maxWindow is how many slots the low bits of a token can tell apart.
const maxWindow = 1 << 16

// lane is a socket with the requests that are in flight on it. At most len(slots) are.
type lane struct {
	socket *socket
	speak  dialect
	open   bool // open loop: a request is sent because its time has come, else because there is a slot for it

	reading sync.Mutex // held from the kernel until what was read is counted
	buf     []byte     // room for the longest datagram; whose reading it is

	mu      sync.Mutex
	slots   []slot
	free    []int               // slots nobody uses
	backlog []time.Time         // open loop: intended times of requests not yet sent, oldest first
	lost    map[uint64]struct{} // tokens of lost requests, whose replies may still come
	over    bool                // nothing more becomes due
	idle    chan<- struct{}     // told when all that was due has ended after over
	ended   time.Time           // when the last operation did
	result  Result
}

// slot is one request in flight. Its time stamps are beside the request, not in it.
type slot struct {
	request []byte
	token   uint64
	due     time.Time // intended time, from which latency counts
	sent    time.Time
	away    time.Time // when the kernel had taken it; zero until then
	fault   error     // why it was not sent after all
	live    bool      // may be answered
	holds   int       // who still uses it: the sender until it has returned from the kernel, the reply until it is counted
}

func newLane(s *socket, d dialect, window int, open bool, idle chan<- struct{}) *lane {
	l := &lane{socket: s, speak: d, open: open, idle: idle, slots: make([]slot, window), buf: make([]byte, 1<<16), lost: map[uint64]struct{}{}}
	for i := range window {
		l.free = append(l.free, i)
	}
	return l
}

// pump sends as many requests as are due and have a slot.
func (l *lane) pump() {
	for {
		i, due, ok := l.reserve()
		if !ok {
			return
		}
		l.send(i, due)
	}
}

// offer makes a request due.
func (l *lane) offer(due time.Time) {
	l.mu.Lock()
	l.backlog = append(l.backlog, due)
	l.mu.Unlock()
	l.pump()
}

func (l *lane) reserve() (i int, due time.Time, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := len(l.free) - 1
	if last < 0 || l.open && len(l.backlog) == 0 || !l.open && l.over {
		return 0, due, false
	}
	i = l.free[last]
	if !l.speak.reserve(i) {
		return 0, due, false
	}
	l.free = l.free[:last]
	if l.open {
		due, l.backlog = l.backlog[0], l.backlog[1:]
	}
	return i, due, true
}

// send sends request i. If that fails it is lost in the end like one that is not answered, so that a server
// which is away is not asked faster than one that is silent.
func (l *lane) send(i int, due time.Time) {
	s := &l.slots[i]
	token := rand.Uint64()&^(maxWindow-1) | uint64(i)
	s.request = l.speak.ask(s.request[:0], i, token)

	l.mu.Lock()
	s.token, s.live, s.holds, s.fault = token, true, 2, nil
	s.sent, s.away = time.Now(), time.Time{}
	s.due = due
	if !l.open {
		s.due = s.sent
	}
	l.mu.Unlock()

	_, err := l.socket.conn.Write(s.request)
	if errors.Is(err, syscall.ECONNREFUSED) { // which was about an earlier one: this one is still here
		_, err = l.socket.conn.Write(s.request)
	}
	l.mu.Lock()
	s.fault, s.away = err, time.Now()
	l.release(i)
	l.mu.Unlock()
}

// release drops one hold on slot i; l.mu is held.
func (l *lane) release(i int) {
	s := &l.slots[i]
	if s.holds--; s.holds > 0 {
		return
	}
	l.free = append(l.free, i)
	l.tellIfIdle()
}

// tellIfIdle tells the end of the last request after the load is over; l.mu is held.
func (l *lane) tellIfIdle() {
	if l.over && l.isIdle() {
		select {
		case l.idle <- struct{}{}:
		default: // told already and not yet heard
		}
	}
}

// receive reads and judges until the socket is closed.
func (l *lane) receive() {
	for l.socket.raw.Read(l.takeNext) == nil {
		l.pump()
	}
}

// takeNext counts the next datagram; false: none is there.
func (l *lane) takeNext(fd uintptr) bool {
	l.reading.Lock()
	defer l.reading.Unlock()
	n, arrived, err := l.socket.read(fd, l.buf)
	if err == nil {
		l.take(l.buf[:n], arrived)
	} // else it is about a datagram that did not reach the server: its request is lost in time
	return err != syscall.EAGAIN
}

// catchUp counts what is there. It says whether that was all, so that what is not answered by now has no reply
// that only waits for us.
func (l *lane) catchUp() (all bool) {
	l.socket.raw.Control(func(fd uintptr) {
		for range 2 * len(l.slots) { // there are no more unless the server sends what nobody asked for
			if all = !l.takeNext(fd); all {
				return
			}
		}
	})
	return all
}

// take counts what a datagram is good for.
func (l *lane) take(b []byte, arrived time.Time) {
	i, ok := l.claim(b)
	if !ok {
		return
	}
	s := &l.slots[i]
	t2, t3, err := l.speak.judge(i, s.request, b)

	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = arrived
	if err != nil {
		l.result.Fail(err)
	} else {
		l.result.Done++
		l.result.Latency.Add(arrived.Sub(s.due))
		l.result.Request, l.result.Reply = max(l.result.Request, len(s.request)), max(l.result.Reply, len(b))
	}
	if err == nil && t3 != 0 {
		got := s.sent.Add(arrived.Sub(s.sent)) // a step of our clock in between does no harm
		offset, delay := packet.OffsetDelay(packet.FromTime(s.sent), t2, t3, packet.FromTime(got))
		l.result.Offset.Add(offset)
		l.result.Delay.Add(delay)
	}
	l.release(i)
}

// claim returns the request that a datagram answers, so that nothing else can answer it.
func (l *lane) claim(b []byte) (i int, ok bool) {
	token, found := l.speak.token(b)
	l.mu.Lock()
	defer l.mu.Unlock()
	i = int(token % maxWindow)
	if found && i < len(l.slots) && l.slots[i].live && l.slots[i].token == token {
		l.slots[i].live = false
		return i, true
	}
	if _, late := l.lost[token]; found && late {
		delete(l.lost, token) // counted when it was lost
		return 0, false
	}
	l.result.Fail(errStray)
	return 0, false
}

// expire counts the requests that were away by then as lost.
func (l *lane) expire(then, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.slots {
		s := &l.slots[i]
		if !s.live || s.away.IsZero() || s.away.After(then) {
			continue
		}
		s.live = false
		l.lost[s.token] = struct{}{}
		l.ended = now
		if s.fault != nil {
			l.result.lose(fmt.Errorf("send a request: %w", s.fault))
		} else {
			l.result.lose(errSilent)
		}
		l.release(i)
	}
}

// finish says that nothing more becomes due.
func (l *lane) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.tellIfIdle()
}

// drop gives up what was due and is still not sent.
func (l *lane) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range l.backlog {
		l.result.lose(errUnsent)
	}
	l.backlog = nil
	l.tellIfIdle()
}

// idles says whether all that was due has ended.
func (l *lane) idles() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.isIdle()
}

func (l *lane) isIdle() bool { return len(l.free) == len(l.slots) && len(l.backlog) == 0 }
