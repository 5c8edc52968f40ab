package status

import (
	"context"
	"net/http"
)

// maxWish bounds what is read of a Wish, in octets: a chain of the largest size that is served, written as JSON.
const maxWish = 2 << 20

// Wish is what is to be done about the certificate of one name.
type Wish struct {
	Name  string `json:"name"`
	Force bool   `json:"force,omitempty"` // of Renew: though it is not due, and past the guard against staging CAs
}

// Outcome is what came of a Wish. No key is in it.
type Outcome struct {
	Certificate Certificate `json:"certificate"`       // as it is afterwards
	NotDue      bool        `json:"not_due,omitempty"` // of Renew: so that nothing was ordered
}

// Renew has a certificate ordered if it is due, or whenever the CA allows, and waits for what comes of it.
func (c *Client) Renew(ctx context.Context, w Wish) (Outcome, error) {
	return c.wish(ctx, "renew", w)
}

func (c *Client) wish(ctx context.Context, verb string, w Wish) (Outcome, error) {
	var got Outcome
	err := c.do(ctx, http.MethodPost, "/certificates/"+verb, w, &got)
	return got, err
}
