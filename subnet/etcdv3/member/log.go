package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"go.uber.org/zap/zapcore"
)

// errRemoved is the error of a member that other members do not have any more. Its text is in the log of the child.
var errRemoved = errors.New("other members report that this host is no member of the store any more")

// logs says what of etcd's log is passed on, and hears what it says of the membership.
type logs struct {
	least   atomic.Int32  // level
	removed chan struct{} // closed when another member has said that this one is none any more
	once    sync.Once     // closes it
}

func newLogs() *logs {
	l := &logs{removed: make(chan struct{})}
	l.least.Store(int32(zapcore.ErrorLevel))
	return l
}

// saysRemoved reports whether a line of etcd's log says that another member does not have this one: it was removed, or
// the store of the other one began anew. etcd tells the first as an error before it ends; with the second it goes on.
func saysRemoved(message string, reason any) bool {
	return message == "server error" && strings.Contains(fmt.Sprint(reason), "permanently removed") ||
		strings.HasPrefix(message, "request sent was ignored") && strings.HasSuffix(message, "cluster ID mismatch")
}

// logCore passes etcd's log on to slog.
type logCore struct {
	log    *slog.Logger
	logs   *logs
	fields []zapcore.Field
}

// Enabled is asked before Check, and lets all through that may say something of the membership.
func (c *logCore) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

func (c *logCore) With(f []zapcore.Field) zapcore.Core {
	return &logCore{c.log, c.logs, append(append([]zapcore.Field{}, c.fields...), f...)}
}

func (c *logCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return ce.AddCore(e, c)
}

func (c *logCore) Write(e zapcore.Entry, f []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, field := range append(append([]zapcore.Field{}, c.fields...), f...) {
		field.AddTo(enc)
	}
	if saysRemoved(e.Message, enc.Fields["error"]) {
		c.logs.once.Do(func() {
			c.logs.least.Store(int32(zapcore.FatalLevel)) // what follows from it says nothing more
			c.log.Error(errRemoved.Error())
			close(c.logs.removed)
		})
		return nil
	}
	if int32(e.Level) < c.logs.least.Load() {
		return nil
	}
	args := make([]any, 0, 2*len(enc.Fields))
	for k, v := range enc.Fields {
		args = append(args, k, v)
	}
	level := slog.LevelWarn
	if e.Level > zapcore.WarnLevel {
		level = slog.LevelError
	}
	c.log.Log(context.Background(), level, e.Message, args...)
	return nil
}

func (c *logCore) Sync() error { return nil }
