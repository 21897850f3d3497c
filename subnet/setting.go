package subnet

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
)

// Setting is a backend with its options, as a network configuration names one. The zero value is none.
type Setting struct {
	Type   string // lower case
	Object []byte // JSON, as it was given; nil: the backend's defaults
}

// Same reports whether two settings say the same, whatever their blanks, the order of their keys and the case of these.
func (s Setting) Same(o Setting) bool {
	return s.Type == o.Type && (bytes.Equal(s.Object, o.Object) || reflect.DeepEqual(s.options(), o.options()))
}

// options returns the options by their names in lower case.
func (s Setting) options() map[string]any {
	var object map[string]any
	_ = json.Unmarshal(s.Object, &object) // ParseConfig has read it
	out := map[string]any{}
	for name, v := range object {
		out[strings.ToLower(name)] = v
	}
	delete(out, "type")
	return out
}

func (s Setting) equal(o Setting) bool { return s.Type == o.Type && bytes.Equal(s.Object, o.Object) }

// Main returns the backend that the configuration names first.
func (c Config) Main() Setting { return Setting{c.BackendType, c.Backend} }

// Settings returns the backends that a host has at a time, in the order of preference.
func (c Config) Settings() []Setting {
	all := []Setting{c.Main()}
	for _, s := range []Setting{c.Next, c.Previous} {
		if s.Type != "" {
			all = append(all, s)
		}
	}
	return all
}

// Of returns the configuration of the same network with one backend alone.
func (c Config) Of(s Setting) Config {
	c.BackendType, c.Backend = s.Type, s.Object
	c.Next, c.Previous, c.Migrated = Setting{}, Setting{}, Setting{}
	return c
}

// SameSettings reports whether two configurations have the same backends at the same places.
func (c Config) SameSettings(o Config) bool {
	return c.Main().Same(o.Main()) && c.Next.Same(o.Next) && c.Previous.Same(o.Previous)
}

// FollowedFrom reports whether a host that runs under another configuration may follow to this one at once: its peers
// reach it by what it has then, or have gone on without it.
func (c Config) FollowedFrom(now Config) bool {
	main := now.Main()
	return main.Same(c.Main()) || now.Next.Same(c.Main()) || now.Previous.Same(c.Main()) ||
		main.Same(c.Previous) || main.Same(c.Migrated)
}

// carries reports whether a host of the network can send to a lease by one of its backends, as far as their types tell.
func (c Config) carries(l *Lease) bool {
	switch {
	case l.BackendType == c.BackendType:
		return true
	case l.Offers == "" && c.Next.Type == "" && c.Previous.Type == "":
		return false
	}
	for _, s := range c.Settings() {
		for _, way := range l.Ways() {
			if way.Type == s.Type {
				return true
			}
		}
	}
	return false
}

// ParseSetting reads a backend with its options.
func ParseSetting(text []byte) (Setting, error) {
	f := fields{object: map[string]json.RawMessage{"Backend": text}}
	s := f.setting("Backend")
	return s, errors.Join(f.errs...)
}

// setting reads one of the backends of a configuration.
func (f *fields) setting(key string) Setting {
	raw, ok := f.lookup(key)
	if !ok {
		return Setting{}
	}
	object, err := parseObject(raw)
	if err != nil {
		f.fail(`%s is %.80s, want an object such as {"Type": "vxlan"}`, key, raw)
		return Setting{}
	}
	inner := fields{object: object}
	kind := strings.ToLower(field(&inner, "Type", "", "the name of a backend"))
	if kind == "" {
		inner.fail("Type is missing: the name of a backend")
	} else if len(kind) > maxKind {
		inner.fail("Type is %.80q, want the name of a backend", kind)
	}
	for _, err := range inner.errs {
		f.fail("%s: %w", key, err)
	}
	return Setting{kind, raw}
}
