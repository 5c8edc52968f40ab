package acme

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"ntsagent/acme/store"
)

// ErrInUse says that a certificate need not be imported.
var ErrInUse = errors.New("this certificate is in use already")

// Request makes a certificate request for the name, as PEM, that an operator may have signed elsewhere. Its key stays in the
// store, is that of no order, and stays the same until Import has brought a certificate for it.
func (m *Manager) Request() ([]byte, error) {
	key, err := m.cfg.Store.RequestKey(m.cfg.Name, m.cfg.KeyType)
	if err != nil {
		return nil, err
	}
	csr, err := newRequest(m.cfg.Name, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr.Raw}), nil
}

// Import puts a chain into service that somebody else had signed for the key of Request, or for the key in use. It is looked at
// as one from the CA is, and on any doubt the certificate in use stays. The schedule goes on with it: it is renewed when it
// is due, by an order.
func (m *Manager) Import(ctx context.Context, chainPEM []byte) error {
	return m.run(ctx, func(context.Context) error { return m.take(chainPEM) })
}

func (m *Manager) take(chainPEM []byte) error {
	name, now := m.cfg.Name, time.Now()
	leaf := leafOf(chainPEM)
	if leaf == nil {
		return errors.New("there is no certificate in it; it must be PEM, the server's own first, the intermediates after it")
	}
	if m.unread != "" {
		return errors.New(unread(m.unread) + "; " + hintUnread)
	}
	before := m.leaf()
	if chain, _, err := m.cfg.Store.Current(name); err == nil && before != nil && before.Equal(leaf) && bytes.Equal(chain, chainPEM) {
		return ErrInUse
	}
	keyPEM, err := m.cfg.Store.KeyFor(name, chainPEM)
	if errors.Is(err, store.ErrNoKey) {
		return fmt.Errorf("its first certificate is for a key that is not here: have one made for the request that ntsagent cert csr --name %s prints", name)
	}
	if err != nil {
		return err
	}
	if v := revokedAs(leaf, m.renewal); v != nil {
		return fmt.Errorf("it, or its key, was revoked at %s (%s)", minute(v.At), revocationText(v))
	}
	if err := m.cfg.Live.Check(name, chainPEM, keyPEM, now); err != nil {
		return err
	}
	if err := Complete(chainPEM, m.cfg.Roots, now); err != nil {
		return err
	}
	if err := m.cfg.Store.Import(name, chainPEM, keyPEM); err != nil {
		return err
	}
	if _, err := m.cfg.Live.Install(name, chainPEM, keyPEM, now); err != nil {
		return err
	}
	m.newest = m.leaf()
	if m.newest.Equal(before) { // with other certificates behind it
		return nil
	}
	again := ""
	if !m.begun(false) {
		again = ": orders go on"
	}
	if err := m.save(afterImport(now, m.newest, m.renewal)); err != nil {
		m.log.Warn("renewal state not saved", "error", err)
	}
	m.log.Info("certificate imported"+again, "issuer", issuerName(leaf), "not_after", minute(leaf.NotAfter))
	m.event(Imported, "issued by "+issuerName(leaf)+", valid until "+minute(leaf.NotAfter)+again)
	return nil
}
