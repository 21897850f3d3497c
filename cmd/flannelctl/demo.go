package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"flanneld/lab"
)

// newDemo shows the network on one machine, in namespaces that nothing else sees.
func newDemo(a *app) *cobra.Command {
	var hold bool
	o := lab.DemoOptions{Out: a.out}
	c := &cobra.Command{
		Use: "demo", Short: "Three hosts on one overlay, on this machine, from nothing to a ping between their pods", Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Flanneld, err = beside(o.Flanneld); err != nil {
				return err
			}
			if hold {
				o.Hold = func(ctx context.Context) { <-ctx.Done() }
			}
			return lab.Demo(cmd.Context(), o)
		},
	}
	c.Flags().BoolVar(&hold, "hold", false, "keep it up until interrupted")
	c.Flags().StringVar(&o.Flanneld, "flanneld", "", "path of the daemon (default: beside flannelctl, else in the path)")
	c.Flags().IntVar(&o.Hosts, "hosts", 3, "number of hosts, at least 2")
	return c
}

// beside finds the daemon where this program lies, or in the path.
func beside(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), "flanneld")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath("flanneld")
	if err != nil {
		return "", fmt.Errorf("find flanneld, name it with --flanneld: %w", err)
	}
	return path, nil
}
