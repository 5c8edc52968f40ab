package status

import (
	"context"
	"net/http"
)

// maxWish bounds what is read of a Wish, in octets: a chain of the largest size that is served, written as JSON.
const maxWish = 2 << 20

// Wish is what is to be done about the certificate of one name.
type Wish struct {
	Name   string `json:"name"`
	Force  bool   `json:"force,omitempty"`  // of Renew: though it is not due, and past the guard against staging CAs
	Serial string `json:"serial,omitempty"` // of Revoke: of the certificate that is meant
	Reason string `json:"reason,omitempty"` // of Revoke, as RFC 5280 writes it; "" = unspecified
	Chain  string `json:"chain,omitempty"`  // of Import: PEM
}

// Outcome is what came of a Wish. No key is in it.
type Outcome struct {
	Certificate Certificate `json:"certificate"`       // as it is afterwards
	NotDue      bool        `json:"not_due,omitempty"` // of Renew: so that nothing was ordered
	Hint        string      `json:"hint,omitempty"`    // with NotDue: what --force would come to
	Revoked     string      `json:"revoked,omitempty"` // of Revoke: serial number
	Missing     string      `json:"missing,omitempty"` // of Revoke: why there is no other certificate yet
	Copies      []string    `json:"copies,omitempty"`  // of Revoke, for the end of operation: files that others serve it from
	Request     string      `json:"request,omitempty"` // of Request: PEM
}

// Renew has a certificate ordered if it is due, or whenever the CA allows, and waits for what comes of it.
func (c *Client) Renew(ctx context.Context, w Wish) (Outcome, error) {
	return c.wish(ctx, "renew", w)
}

// Revoke has the CA revoke a certificate and, but for the end of operation, another one ordered, which it waits for. An error
// says that nothing was revoked, or that this is not known.
func (c *Client) Revoke(ctx context.Context, w Wish) (Outcome, error) {
	return c.wish(ctx, "revoke", w)
}

// Request gives a certificate request for a key that stays with the agent.
func (c *Client) Request(ctx context.Context, w Wish) (Outcome, error) {
	return c.wish(ctx, "request", w)
}

// Import has a chain served that was made for such a request, or for the key in use.
func (c *Client) Import(ctx context.Context, w Wish) (Outcome, error) {
	return c.wish(ctx, "import", w)
}

func (c *Client) wish(ctx context.Context, verb string, w Wish) (Outcome, error) {
	var got Outcome
	err := c.do(ctx, http.MethodPost, "/certificates/"+verb, w, &got)
	return got, err
}
