// Package task keeps the agent's long-running parts alive and ends them in order.
//
// A Group starts named tasks, restarts those that fail with a growing, jittered
// delay, turns a panic into such a failure, and stops all in the reverse order
// of their start. It also speaks systemd's notification protocol (notify.go).
package task

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	firstDelay = time.Second      // before the first restart
	lastDelay  = time.Minute      // the longest delay between restarts
	steady     = time.Minute      // a run this long was a good one: the next delay is firstDelay again
	stopLimit  = 10 * time.Second // how long Stop waits in all
)

// Policy says what happens when a task returns although nobody stopped it.
type Policy int

const (
	// Restart starts the task again after an error, never after a nil.
	Restart Policy = iota
	// Once only logs an error.
	Once
)

// Task is one long-running part. Run must return soon after its context ends;
// what it returns then does not count.
type Task struct {
	Name   string // constant, for logs
	Run    func(ctx context.Context) error
	Policy Policy
}

// Group runs tasks. Make one with NewGroup; its methods are safe for concurrent
// use.
type Group struct {
	log hclog.Logger

	mu      sync.Mutex
	running []*running
	stopped bool
}

// running is one started task.
type running struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
}

// NewGroup makes an empty Group.
func NewGroup(log hclog.Logger) *Group {
	return &Group{log: log}
}

// Go starts t. The task's context carries the values of ctx and ends when Stop
// comes to t, not when ctx ends: only so can the order of stopping be kept.
// After Stop, Go does nothing.
func (g *Group) Go(ctx context.Context, t Task) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped {
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &running{name: t.Name, cancel: cancel, done: make(chan struct{})}
	g.running = append(g.running, r)
	go func() {
		defer close(r.done)
		defer cancel()
		g.keep(ctx, t)
	}()
}

// Stop ends the tasks one after the other, last started first, and waits for
// each, in all no longer than 10 s. It names the tasks that did not end.
func (g *Group) Stop() error {
	g.mu.Lock()
	g.stopped = true
	tasks := g.running
	g.running = nil
	g.mu.Unlock()

	limit, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	for i := len(tasks) - 1; i >= 0; i-- {
		tasks[i].cancel()
		select {
		case <-tasks[i].done:
		case <-limit.Done(): // no more waiting, but the others still get told
		}
	}
	var stuck []string
	for _, r := range tasks {
		select {
		case <-r.done:
		default:
			stuck = append(stuck, r.name)
		}
	}
	if len(stuck) > 0 {
		return fmt.Errorf("stop tasks: not ended within %s: %s", stopLimit, strings.Join(stuck, ", "))
	}
	return nil
}

// keep runs t until its context ends or its policy says that it is over.
func (g *Group) keep(ctx context.Context, t Task) {
	delay := firstDelay
	for {
		started := time.Now()
		err := guard(ctx, g.log, t)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			g.log.Debug("task finished", "task", t.Name)
			return
		case t.Policy == Once:
			g.log.Error("task failed", "task", t.Name, "error", err)
			return
		}
		if time.Since(started) >= steady {
			delay = firstDelay
		}
		pause := jitter(delay)
		g.log.Error("task failed, restarting", "task", t.Name, "error", err, "next", pause.Round(time.Millisecond))
		if !sleep(ctx, pause) {
			return
		}
		delay = min(2*delay, lastDelay)
	}
}

// guard runs t once and turns a panic into an error; the stack goes to the log.
func guard(ctx context.Context, log hclog.Logger, t Task) (err error) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("task panicked", "task", t.Name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return t.Run(ctx)
}

// jitter spreads d by a fifth to both sides, so that parts that failed together
// do not come back together.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// sleep waits for d; it says false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
