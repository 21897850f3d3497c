package ip

import (
	"errors"
	"log/slog"
	"time"
)

// ErrFight says that another program keeps changing what this daemon sets. All was put right again, but the next time shall be
// later.
var ErrFight = errors.New("another program keeps changing the network's objects, which are repaired at a lower rate: configure the network manager to leave the devices of flanneld alone")

const (
	// fightWindow is how long an object must have been left alone for the fight about it to be over.
	fightWindow = time.Minute
	// fightLimit is how often an object is put right within a window before that counts as a fight.
	fightLimit = 10
	// mostContested bounds how many objects of one pass are followed.
	mostContested = 16
)

// fights knows the objects that others changed lately. An object that is changed again and again does not wake the daemon
// any more: it is put right at the pace of the retries.
type fights map[Object]*fight

// fight is about one object.
type fight struct {
	since, last time.Time
	count       int
	said        bool
}

// note takes in what one pass found, and who did it.
func (f fights) note(found []drift, by string, now time.Time, log *slog.Logger) {
	f.forget(now)
	for i, d := range found {
		if i == mostContested {
			return
		}
		key := keyOf(d.Object)
		c := f[key]
		if c == nil || !c.on() && now.Sub(c.since) > fightWindow {
			c = &fight{since: now}
			f[key] = c
		}
		c.last = now
		if c.count++; c.on() && !c.said {
			c.said = true
			log.Error("another program keeps changing the network's objects, repairing at a lower rate",
				"object", d.String(), "found", d.found, "times", c.count, "window", now.Sub(c.since).Round(time.Second), "by", nameOf(by))
		}
	}
}

// forget drops the objects that were left alone for a window.
func (f fights) forget(now time.Time) {
	for key, c := range f {
		if now.Sub(c.last) > fightWindow {
			delete(f, key)
		}
	}
}

// about reports whether there is a fight about an object.
func (f fights) about(o Object) bool {
	if len(f) == 0 || o == nil {
		return false
	}
	c := f[keyOf(o)]
	return c != nil && c.on()
}

// any reports whether there is a fight.
func (f fights) any(now time.Time) bool {
	f.forget(now)
	for _, c := range f {
		if c.on() {
			return true
		}
	}
	return false
}

func (c *fight) on() bool { return c.count > fightLimit }

func nameOf(by string) string {
	if by == "" {
		return "unknown"
	}
	return by
}
