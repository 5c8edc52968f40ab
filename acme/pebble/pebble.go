// Package pebble stands before Let's Encrypt's test server in tests and in the lab. No part of the agent uses it.
package pebble

import (
	"net/http"
	"strings"
	"time"

	"github.com/letsencrypt/pebble/v2/acme"
	"github.com/letsencrypt/pebble/v2/db"
)

const (
	orderPath = "/my-order/" // where pebble shows an order
	signing   = 5 * time.Second
	look      = time.Millisecond
)

// Handler is the server's own handler without the ways for it to hang itself that pebble 2.10.1 has. To show an order it takes
// the order's read lock twice, and waits for ever if a certificate comes in between, which locks it to write: a request for an
// order is held back until its certificate is there, signing at most. And its handlers take the locks of authorizations and of
// the store in different orders: they run one at a time.
func Handler(server http.Handler, store *db.MemoryStore) http.Handler {
	turn := make(chan struct{}, 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		turn <- struct{}{}
		defer func() { <-turn }()
		if id, found := strings.CutPrefix(r.URL.Path, orderPath); found {
			for end := time.Now().Add(signing); processing(store, id) && time.Now().Before(end) && r.Context().Err() == nil; {
				<-turn
				time.Sleep(look)
				turn <- struct{}{}
			}
		}
		server.ServeHTTP(w, r)
	})
}

func processing(store *db.MemoryStore, id string) bool {
	order := store.GetOrderByID(id)
	if order == nil {
		return false
	}
	order.RLock()
	defer order.RUnlock()
	return order.Status == acme.StatusProcessing
}
