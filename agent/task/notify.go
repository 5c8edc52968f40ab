package task

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// The functions below tell systemd (sd_notify(3)) how the service is doing.
// Where no NOTIFY_SOCKET is set they do nothing, and an error is never worth
// stopping for: callers log it at most.

// NotifyReady says that the service is up, or that a reload is over.
func NotifyReady(status string) error { return notify(daemon.SdNotifyReady, status) }

// NotifyReloading says that a reload begins; NotifyReady must follow.
func NotifyReloading(status string) error {
	return notify(daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec(), status)
}

// NotifyStopping says that the service is on its way out.
func NotifyStopping(status string) error { return notify(daemon.SdNotifyStopping, status) }

// NotifyStatus changes the one line that `systemctl status` shows.
func NotifyStatus(status string) error { return notify("", status) }

func notify(state, status string) error {
	state = strings.TrimSpace(state)
	if status != "" {
		status = strings.ReplaceAll(status, "\n", " ") // a line end would start another variable
		state = strings.TrimPrefix(state+"\nSTATUS="+status, "\n")
	}
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

// Watchdog is a task for a Group: it feeds systemd's watchdog twice per
// WATCHDOG_USEC as long as alive says so, until ctx ends. Without a watchdog it
// waits for ctx.
func Watchdog(ctx context.Context, alive func(ctx context.Context) bool) error {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read the watchdog interval: %w", err)
	}
	if every <= 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(every / 2)
	defer tick.Stop()
	for {
		if alive(ctx) {
			if err := notify(daemon.SdNotifyWatchdog, ""); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
