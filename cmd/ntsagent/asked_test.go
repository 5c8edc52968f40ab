package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"ntsagent/agent/config"
	"ntsagent/agent/status"
)

func TestAnAgentThatIsNotFoundIsToldByItsCause(t *testing.T) {
	broken := &config.Error{File: "c.yaml", Line: 3, Key: "ke", Problem: "bad"}
	silent := fmt.Errorf("%w: nobody answers on /s", status.ErrNotRunning)
	for _, c := range []struct {
		name        string
		err, unread error
		code        int
		says        string
	}{
		{"nobody answers and the configuration is broken", silent, broken, exitUsage, "c.yaml:3: ke: bad\nc.yaml: asked at the default socket /s, where no agent"},
		{"nobody answers and the configuration is closed to us", silent, fmt.Errorf("c.yaml: %w", fs.ErrPermission), exitNotPermitted, "asked at the default socket"},
		{"nobody answers and there is no configuration", silent, fmt.Errorf("c.yaml: %w", fs.ErrNotExist), exitNotRunning, "the agent is not running"},
		{"nobody answers where the configuration says", silent, nil, exitNotRunning, "the agent is not running"},
		{"an agent refuses, whatever the configuration is", status.ErrNotPermitted, broken, exitNotPermitted, "not permitted"},
	} {
		err := asked(c.err, c.unread, "c.yaml", "/s")
		var e *exitError
		if !errors.As(err, &e) || e.code != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v (%+v)", c.name, err, e)
		}
	}
	if err := asked(nil, broken, "c.yaml", "/s"); err != nil {
		t.Errorf("an agent that answers is an error: %v", err)
	}
}
