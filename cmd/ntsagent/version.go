package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
)

// version is the release; a build sets it with -ldflags "-X main.version=1.0.0".
var version = ""

// release names this build: the release, else the revision it was built from.
func release() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}

// built is a time before which no clock that this program reads can be right: that of the revision it was built from, or of the
// first release that asks.
func built() time.Time {
	least := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return least
	}
	for _, s := range info.Settings {
		if at, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil && at.After(least) {
			return at
		}
	}
	return least
}

func versionCommand(g *globals) *cobra.Command {
	return verb(&cobra.Command{
		Use:   "version",
		Short: "print the version",
		RunE: func(cmd *cobra.Command, _ []string) error {
			text := fmt.Sprintf("ntsagent %s (%s, %s/%s)\n", release(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return show(cmd, g, map[string]string{"version": release(), "go": runtime.Version()}, text)
		},
	}, "json", "quiet")
}
