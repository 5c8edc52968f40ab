package gateway

// pace is how long the parts of a batch take on average. A response whose transmit timestamp is read before
// those behind it are sealed leaves late by a time that is known quite well beforehand, so it is added.
type pace struct {
	answer float64 // ns to make one response
	send   float64 // ns to hand one to the network
}

const (
	// afterT3 is the share of making a response that lies behind the reading of its transmit timestamp: the seal.
	afterT3 = 0.4
	// inSend is the share of sending a datagram until it has left. Low, because a timestamp that is too late
	// makes the network look faster than it is: on loopback the wake-up of the receiver counts as sending.
	inSend = 0.15
	// smooth is the weight of one batch in the averages.
	smooth = 1.0 / 64
	// farOff is what no batch takes unless the process was interrupted in it. It teaches nothing.
	farOff = 200e3
)

// lead returns the ns from reading the transmit timestamp to the wire of a response, if as many datagrams of
// the batch are left, itself included, and so many responses are sent before it.
func (p *pace) lead(left, before int) int64 {
	return int64((float64(left)-1+afterT3)*p.answer + (float64(before)+inSend)*p.send)
}

// learn takes in a batch of n datagrams that was begun, sealed and sent at these times, Instant.Mono.
func (p *pace) learn(n, responses int, begin, sealed, sent int64) {
	answer, send := float64(sealed-begin)/float64(n), float64(sent-sealed)/float64(responses)
	if answer < 0 || send < 0 || answer > farOff || send > farOff {
		return
	}
	if p.send == 0 {
		p.answer, p.send = answer, send
	}
	p.answer += smooth * (answer - p.answer)
	p.send += smooth * (send - p.send)
}
