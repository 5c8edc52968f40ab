package issuer

// Idle returns a channel that gives when no order is under way, an abandoned one included.
func (i *Issuer) Idle() <-chan struct{} {
	c := make(chan struct{})
	go func() {
		i.slot <- struct{}{}
		<-i.slot
		close(c)
	}()
	return c
}
