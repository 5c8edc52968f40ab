package issuer

import (
	"encoding/json"

	legoacme "github.com/go-acme/lego/v4/acme"
)

// look notes what a CA has found wrong with a challenge that it leaves open, to look again when it is asked to (RFC 8555 section
// 8.2). step-ca does so. lego never asks it to, and waits without a word of it.
func (s *session) look(body []byte) {
	type challenge struct {
		Status string                   `json:"status"`
		Token  string                   `json:"token"`
		Error  *legoacme.ProblemDetails `json:"error"`
	}
	var answer struct {
		challenge
		Challenges []challenge `json:"challenges"` // of an authorization
	}
	if json.Unmarshal(body, &answer) != nil {
		return
	}
	for _, c := range append(answer.Challenges, answer.challenge) {
		if open := c.Status == "pending" || c.Status == "processing"; open && c.Token != "" && c.Error != nil {
			s.mu.Lock()
			s.found = c.Error
			s.mu.Unlock()
		}
	}
}

// forget begins a challenge anew.
func (s *session) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found = nil
}

// why is err, or what the CA has found if it has told of it in an open challenge only.
func (s *session) why(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, text := explain(err); text != notInTime || s.found == nil {
		return err
	}
	found := *s.found
	found.Method, found.URL = "", "" // it came of a validation, whatever it says
	return &found
}
