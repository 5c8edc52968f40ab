package gateway

// pace is how long the parts of a batch take as a rule. A response whose transmit timestamp is read before
// those behind it are sealed leaves late by a time that is known quite well beforehand, so it is added.
type pace struct {
	answer float64 // ns to make one response
	send   float64 // ns to hand one to the network
}

const (
	// smooth is by how much one batch may change what is known.
	smooth = 1.0 / 64
	// farOff is what no batch takes unless the process was interrupted in it. It teaches nothing.
	farOff = 200e3
)

// lead returns the ns by which a response waits for the others of its batch, if as many datagrams are left,
// itself included, and so many responses are sent before it. Its own way through the kernel is left out: a
// client takes that for part of the network, as it does with every server.
func (p *pace) lead(left, before int) int64 {
	return int64(float64(left-1)*p.answer + float64(before)*p.send)
}

// learn takes in a batch of n datagrams that was begun, sealed and sent at these times, Instant.Mono. One that
// came alone tells what it is to wake up, and nothing of a batch.
func (p *pace) learn(n, responses int, begin, sealed, sent int64) {
	answer, send := float64(sealed-begin)/float64(n), float64(sent-sealed)/float64(responses)
	if n < 2 || answer < 0 || send < 0 || answer > farOff || send > farOff {
		return
	}
	if p.answer == 0 || p.send == 0 {
		p.answer, p.send = answer, send
	}
	p.answer, p.send = toward(p.answer, answer), toward(p.send, send)
}

// toward moves a median a little towards a new value. An interruption counts no more than any other surprise, so that
// few of them do not make all others leave too early.
func toward(median, value float64) float64 {
	switch {
	case value > median:
		return median * (1 + smooth)
	case value < median:
		return median * (1 - smooth)
	}
	return median
}
