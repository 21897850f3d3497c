package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"flanneld/api"
	"flanneld/version"
)

// patience is how long a daemon may take to say its version.
const patience = 5 * time.Second

// versions are those of this program and of the daemon that runs.
type versions struct {
	version.Build
	Daemon  *version.Build `json:"daemon,omitempty"`
	Problem string         `json:"daemon_error,omitempty"` // why the daemon's is not known
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the versions of flannelctl and of the daemon that runs", Args: arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), patience)
			defer cancel()
			v := versions{Build: version.This()}
			if s, err := ask[api.Status](ctx, a, api.PathStatus); err != nil {
				v.Problem = err.Error()
			} else {
				v.Daemon = buildOf(s)
			}
			return a.print(v, func(w page) { writeVersions(w, v) })
		},
	}
}

// buildOf returns the build of a daemon. One of an earlier version tells no more than the version.
func buildOf(s api.Status) *version.Build {
	if s.Build != nil {
		return (*version.Build)(s.Build)
	}
	return &version.Build{Version: s.Version}
}

func writeVersions(w page, v versions) {
	write := func(name string, b version.Build) {
		w.line("%s %s", name, b.Version)
		for _, line := range b.Details() {
			w.line("  %s", line)
		}
	}
	write("flannelctl", v.Build)
	if v.Daemon == nil {
		w.line("flanneld: %s", v.Problem)
		return
	}
	write("flanneld", *v.Daemon)
}
