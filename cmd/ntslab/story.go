package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// story tells what happens, one line per step, with the seconds since the start.
type story struct {
	mu    sync.Mutex
	w     io.Writer
	start time.Time
}

func newStory(w io.Writer) *story { return &story{w: w, start: time.Now()} }

// tell writes one line under a short subject; "" continues the subject before.
func (s *story) tell(subject, format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ")
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.w, "%5.1f s  %-12s %s\n", time.Since(s.start).Seconds(), subject, text)
}

// show writes lines as they are, for output and commands to copy.
func (s *story) show(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		fmt.Fprintf(s.w, "           %s\n", strings.TrimRight(line, "\n"))
	}
}
