package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
)

// watchPause is the time between two prints of a watching command.
const watchPause = 2 * time.Second

// watchable gives a command the flag -w, with which it prints again and again.
func watchable(a *app, c *cobra.Command) *cobra.Command {
	watch := false
	c.Flags().BoolVarP(&watch, "watch", "w", false, "print again every 2 seconds until interrupted")
	once := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if !watch {
			return once(cmd, args)
		}
		return a.watch(cmd.Context(), func() error { return once(cmd, args) })
	}
	return c
}

// watch prints until it is interrupted. A daemon that does not answer may be back later; a fault that was printed does
// not end it.
func (a *app) watch(ctx context.Context, show func() error) error {
	for again := false; ; again = true {
		if err := a.clearScreen(again); err != nil {
			return err
		}
		switch err := show(); {
		case err == nil, errors.Is(err, errNotOK), errors.Is(err, errDegraded), ctx.Err() != nil:
		case exitCode(err) == exitNoDaemon:
			if err := writePage(a.out, func(w page) { w.line("%v", err) }); err != nil {
				return err
			}
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchPause):
		}
	}
}
