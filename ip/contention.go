package ip

import (
	"errors"
	"log/slog"
	"time"
)

// ErrContention says that another program keeps changing what this daemon sets. All was put right again, but the next
// time shall be later.
var ErrContention = errors.New("another program keeps changing the network's objects, which are repaired at a lower " +
	"rate: configure the network manager to leave the devices of flanneld alone")

const (
	// contentionWindow is how long an object must have been left alone for the contention about it to be over.
	contentionWindow = time.Minute
	// contentionLimit is how often an object is put right within a window before that counts as a contention.
	contentionLimit = 10
	// mostContested bounds how many objects of one pass are followed.
	mostContested = 16
)

// contentions knows the objects that others changed lately. An object that is changed again and again does not wake the
// daemon any more: it is put right at the pace of the retries.
type contentions map[Object]*contention

// contention is about one object.
type contention struct {
	since, last time.Time
	count       int
	said        bool
}

// note takes in what one pass found, and who did it.
func (f contentions) note(found []drift, by string, now time.Time, log *slog.Logger) {
	f.forget(now)
	for i, d := range found {
		if i == mostContested {
			return
		}
		key := keyOf(d.Object)
		c := f[key]
		if c == nil || !c.on() && now.Sub(c.since) > contentionWindow {
			c = &contention{since: now}
			f[key] = c
		}
		c.last = now
		if c.count++; c.on() && !c.said {
			c.said = true
			log.Error("another program keeps changing the network's objects, repairing at a lower rate",
				"object", d.String(), "found", d.found, "times", c.count, "window", now.Sub(c.since).Round(time.Second),
				"by", nameOf(by))
		}
	}
}

// forget drops the objects that were left alone for a window.
func (f contentions) forget(now time.Time) {
	for key, c := range f {
		if now.Sub(c.last) > contentionWindow {
			delete(f, key)
		}
	}
}

// about reports whether there is a contention about an object.
func (f contentions) about(o Object) bool {
	if len(f) == 0 || o == nil {
		return false
	}
	c := f[keyOf(o)]
	return c != nil && c.on()
}

// any reports whether there is a contention.
func (f contentions) any(now time.Time) bool {
	f.forget(now)
	for _, c := range f {
		if c.on() {
			return true
		}
	}
	return false
}

func (c *contention) on() bool { return c.count > contentionLimit }

func nameOf(by string) string {
	if by == "" {
		return "unknown"
	}
	return by
}
