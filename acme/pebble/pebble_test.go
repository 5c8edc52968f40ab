package pebble

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/letsencrypt/pebble/v2/core"
	"github.com/letsencrypt/pebble/v2/db"
)

func TestAnOrderIsShown(t *testing.T) {
	t.Run("at once when nothing is signed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { wantShown(t, &core.Order{ID: "1"}, func(*core.Order) {}, 0) })
	})
	t.Run("when its certificate is there", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			wantShown(t, &core.Order{ID: "1", BeganProcessing: true}, func(o *core.Order) {
				time.Sleep(time.Second)
				o.Lock()
				o.CertificateObject = &core.Certificate{}
				o.Unlock()
			}, time.Second)
		})
	})
	t.Run("after a while though its certificate never comes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			wantShown(t, &core.Order{ID: "1", BeganProcessing: true}, func(*core.Order) {}, signing)
		})
	})
}

// wantShown asks for the order while meanwhile runs, and wants the answer after so long.
func wantShown(t *testing.T, order *core.Order, meanwhile func(*core.Order), after time.Duration) {
	t.Helper()
	store := db.NewMemoryStore()
	if _, err := store.AddOrder(order); err != nil {
		t.Fatal(err)
	}
	began, shown := time.Now(), make(chan time.Time, 1)
	server := Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { shown <- time.Now() }), store)
	go meanwhile(order)
	server.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, orderPath+order.ID, nil))
	if took := (<-shown).Sub(began); took < after || took > after+2*look {
		t.Errorf("the order was shown after %v, not %v", took, after)
	}
}

func TestRequestsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inside := 0
		server := Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			inside++ // the race detector watches, too
			if inside > 1 {
				t.Error("two requests at a time")
			}
			time.Sleep(time.Second)
			inside--
		}), db.NewMemoryStore())
		for range 3 {
			go server.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/order-plz", nil))
		}
		time.Sleep(4 * time.Second)
	})
}
