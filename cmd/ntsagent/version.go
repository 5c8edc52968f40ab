package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

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
