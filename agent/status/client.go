package status

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"

	"golang.org/x/sys/unix"
)

// What a Client's errors may wrap.
var (
	ErrNotRunning   = errors.New("the agent is not running")
	ErrNotPermitted = errors.New("not permitted")
	ErrInvalid      = errors.New("invalid configuration")
	ErrTemporary    = errors.New("temporary failure")
	ErrPointless    = errors.New("nothing to do") // by the agent, now or later
	ErrFailed       = errors.New("failed")        // and will again until somebody mends it
)

// maxAnswer bounds what a Client reads, in octets.
const maxAnswer = 4 << 20

// Client asks the agent behind a control socket.
type Client struct {
	socket string
	http   http.Client
}

// NewClient makes a Client for the socket at this path; it connects at each call.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &Client{socket, http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Status fetches the whole Document.
func (c *Client) Status(ctx context.Context) (Document, error) {
	var d Document
	err := c.do(ctx, http.MethodGet, "/status", nil, &d)
	return d, err
}

// Reload makes the agent read its configuration again. A bad one changes
// nothing and is ErrInvalid with the lines to show.
func (c *Client) Reload(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/reload", nil, nil)
}

// Rotate makes the agent rotate its cookie keys now and prove them. Where the
// daemon does that itself the error is ErrPointless and says so.
func (c *Client) Rotate(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/keys/rotate", nil, nil)
}

// do asks with body, nil = none, and reads the answer into what is not nil.
func (c *Client) do(ctx context.Context, method, path string, body, into any) error {
	var sent bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&sent).Encode(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, &sent)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%w: read the answer on %s: %w", ErrTemporary, c.socket, err)
	}
	if resp.StatusCode != http.StatusOK {
		return refusal(resp.StatusCode, answer)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("read the answer on %s: %w", c.socket, err)
	}
	return nil
}

func (c *Client) unreachable(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOTSOCK), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%w: nobody answers on %s; start it, or name its socket with --socket", ErrNotRunning, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %s; run as root or as the agent's user", ErrNotPermitted, c.socket)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: no answer on %s in time; try again or give a longer --timeout", ErrTemporary, c.socket)
	}
	return fmt.Errorf("%w: ask the agent on %s: %w", ErrTemporary, c.socket, err)
}

// refused is an error with the agent's own words, which say enough by
// themselves, and the class they belong to.
type refused struct {
	class error
	words string
}

func (r *refused) Error() string { return r.words }
func (r *refused) Unwrap() error { return r.class }

// Refuse makes an error of one of the classes above that reads as words alone.
func Refuse(class error, words string) error { return &refused{class, words} }

func refusal(code int, body []byte) error {
	var f failure
	if json.Unmarshal(body, &f) != nil || f.Error == "" {
		f.Error = fmt.Sprintf("the agent answered %d %s", code, http.StatusText(code))
	}
	switch code {
	case http.StatusForbidden:
		return &refused{ErrNotPermitted, f.Error}
	case http.StatusConflict:
		return &refused{ErrPointless, f.Error}
	case http.StatusBadGateway:
		return &refused{ErrFailed, f.Error}
	case http.StatusUnprocessableEntity:
		return &refused{ErrInvalid, f.Error}
	}
	return &refused{ErrTemporary, f.Error}
}
