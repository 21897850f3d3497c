package status

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"flanneld/api"
	"flanneld/subnet"
)

const (
	journalEvents = 200  // lines kept for those who ask
	journalErrors = 20   // of warnings and errors among the last lines
	journalDetail = 2000 // bytes kept of one line beside its message
	lineBurst     = 20   // lines with the same message that pass at once
	linePause     = time.Second
)

// Journal passes log lines on, keeps the last ones, and holds back those that repeat: of one message, twenty at once
// and one a second later. What was held back is counted in the next one that passes. Debug lines are neither kept nor
// held back.
type Journal struct {
	next  slog.Handler
	attrs string
	*lines
}

// lines is shared by all handlers derived from one Journal.
type lines struct {
	mu     sync.Mutex // guards all below
	events []api.Event
	limits map[string]*limit // by message, which is constant in the program
}

type limit struct {
	rate.Limiter
	held int
}

// NewJournal returns a journal before a handler.
func NewJournal(next slog.Handler) *Journal {
	return &Journal{next: next, lines: &lines{limits: map[string]*limit{}}}
}

// Enabled implements slog.Handler.
func (j *Journal) Enabled(ctx context.Context, level slog.Level) bool {
	return j.next.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (j *Journal) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelInfo {
		return j.next.Handle(ctx, r)
	}
	held, pass := j.take(r.Message)
	if !pass {
		return nil
	}
	if held > 0 {
		r.AddAttrs(slog.Int("held_back", held))
	}
	j.keep(r)
	return j.next.Handle(ctx, r)
}

// take reports whether a line may pass, and how many before it did not.
func (j *lines) take(message string) (held int, pass bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	l, ok := j.limits[message]
	if !ok {
		l = &limit{Limiter: *rate.NewLimiter(rate.Every(linePause), lineBurst)}
		j.limits[message] = l
	}
	if !l.Allow() {
		l.held++
		return 0, false
	}
	held, l.held = l.held, 0
	return held, true
}

func (j *Journal) keep(r slog.Record) {
	var b strings.Builder
	b.WriteString(j.attrs)
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&b, a)
		return true
	})
	detail := subnet.Brief(strings.TrimSpace(b.String()), journalDetail)
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.events) == journalEvents {
		j.events = append(j.events[:0], j.events[1:]...)
	}
	j.events = append(j.events, api.Event{Time: r.Time.UTC(), Level: r.Level.String(), Message: r.Message, Detail: detail})
}

func writeAttr(b *strings.Builder, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		return // the options at the start: too long for a line
	}
	b.WriteString(" " + a.Key + "=" + v.String())
}

// WithAttrs implements slog.Handler.
func (j *Journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	b.WriteString(j.attrs)
	for _, a := range attrs {
		writeAttr(&b, a)
	}
	return &Journal{next: j.next.WithAttrs(attrs), attrs: b.String(), lines: j.lines}
}

// WithGroup implements slog.Handler.
func (j *Journal) WithGroup(name string) slog.Handler {
	return &Journal{next: j.next.WithGroup(name), attrs: j.attrs, lines: j.lines}
}

// Events returns the last lines, oldest first.
func (j *lines) Events() []api.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]api.Event{}, j.events...)
}

// Errors returns the warnings and errors among the last lines, oldest first.
func (j *lines) Errors() []api.Event {
	out := []api.Event{}
	for _, e := range j.Events() {
		if e.Level != slog.LevelInfo.String() {
			out = append(out, e)
		}
	}
	return out[max(0, len(out)-journalErrors):]
}
