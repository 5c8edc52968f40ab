package task

import (
	"fmt"
	"strings"

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

func notify(state, status string) error {
	state = strings.TrimSpace(state)
	if status != "" {
		status = strings.ReplaceAll(status, "\n", " ") // a line end would start another variable
		state += "\nSTATUS=" + status
	}
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}
