package kube

import (
	"context"
	"log/slog"

	"k8s.io/apimachinery/pkg/util/wait"
)

// quiet turns what the client library calls information into debug messages: this package says what matters itself.
type quiet struct{ slog.Handler }

// Enabled implements slog.Handler.
func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return q.Handler.Enabled(ctx, lower(level))
}

// Handle implements slog.Handler.
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = lower(r.Level)
	return q.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }

func lower(level slog.Level) slog.Level {
	if level < slog.LevelError {
		return min(level, slog.LevelDebug)
	}
	return level
}

// newBackoff returns the pauses between attempts that fail: longer each time, and not the same on all hosts.
func newBackoff() wait.Backoff {
	return wait.Backoff{Duration: firstWatchPause, Cap: lastWatchPause, Steps: 10, Factor: 2, Jitter: 1}
}
