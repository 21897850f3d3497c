package options

import (
	"encoding"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"flanneld/redact"
	"flanneld/subnet"
)

// Secret is a text that no log, message or JSON shows. Convert it to string where it is used.
type Secret string

var _ encoding.TextMarshaler = Secret("")

// Format implements fmt.Formatter, for all verbs.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redact.Mark
}

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// value is the flag.Value of a T. The error of parse says what is wanted; show must not reveal secrets.
type value[T any] struct {
	p       *T
	parse   func(string) (T, error)
	show    func(T) string
	hidden  bool // error messages must not quote what was given
	allowed []T  // all values that it may have; nil: any
}

// Set implements flag.Value.
func (v value[T]) Set(s string) error {
	t, err := v.parse(s)
	if err != nil {
		return err
	}
	*v.p = t
	return nil
}

func (v value[T]) String() string { return v.show(*v.p) }

// IsBoolFlag tells package flag that a switch needs no value.
func (v value[T]) IsBoolFlag() bool {
	_, ok := any(v.p).(*bool)
	return ok
}

// Choices returns the texts of all values that it may have; nil: any.
func (v value[T]) Choices() []string {
	var out []string
	for _, t := range v.allowed {
		out = append(out, v.show(t))
	}
	return out
}

func (v value[T]) isHidden() bool { return v.hidden }

func text(p *string) value[string] {
	return value[string]{p: p, parse: func(s string) (string, error) { return s, nil },
		show: func(s string) string { return s }}
}

func filePath(p *string) value[string] {
	v := text(p)
	v.parse = func(s string) (string, error) {
		if s == "" {
			return "", errors.New("want a path")
		}
		return s, nil
	}
	return v
}

func secret(p *Secret) value[Secret] {
	return value[Secret]{p: p, parse: func(s string) (Secret, error) { return Secret(s), nil }, show: Secret.String,
		hidden: true}
}

func toggle(p *bool) value[bool] {
	return value[bool]{p: p, show: strconv.FormatBool, parse: func(s string) (bool, error) {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return false, errors.New("want true or false")
		}
		return b, nil
	}}
}

func verbosity(p *int) value[int] {
	return value[int]{p: p, show: strconv.Itoa, parse: func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil {
			return 0, errors.New("want a number")
		}
		return n, nil
	}}
}

func port(p *uint16) value[uint16] {
	show := func(n uint16) string { return strconv.Itoa(int(n)) }
	return value[uint16]{p: p, show: show, parse: func(s string) (uint16, error) {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			return 0, errors.New("want a port, 0 to 65535")
		}
		return uint16(n), nil
	}}
}

// units reads a whole number of units, as flags do that are older than durations.
func units(p *time.Duration, unit time.Duration, low, high int, name string) value[time.Duration] {
	show := func(d time.Duration) string { return strconv.FormatInt(int64(d/unit), 10) }
	return value[time.Duration]{p: p, show: show, parse: func(s string) (time.Duration, error) {
		n, err := strconv.Atoi(s)
		if err != nil || n < low || n > high {
			return 0, fmt.Errorf("want %d to %d %s", low, high, name)
		}
		return time.Duration(n) * unit, nil
	}}
}

func duration(p *time.Duration, least time.Duration) value[time.Duration] {
	return value[time.Duration]{p: p, show: showDuration, parse: func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		if err != nil || d < least {
			return 0, fmt.Errorf("want a duration such as 90s or 24h, at least %s", showDuration(least))
		}
		return d, nil
	}}
}

// showDuration writes 24h, where the standard library writes 24h0m0s.
func showDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// alternatives joins words: "a, b or c".
func alternatives[T ~string](words []T) string {
	text := string(words[0])
	for i, w := range words[1:] {
		if i+2 == len(words) {
			text += " or " + string(w)
		} else {
			text += ", " + string(w)
		}
	}
	return text
}

func oneOf[T ~string](p *T, allowed ...T) value[T] {
	return value[T]{p: p, allowed: allowed, show: func(t T) string { return string(t) }, parse: func(s string) (T, error) {
		if !slices.Contains(allowed, T(s)) {
			return "", fmt.Errorf("want %s", alternatives(allowed))
		}
		return T(s), nil
	}}
}

// list appends, without empty elements: a unit file whose variable is unset says -iface= .
func list(p *[]string) value[[]string] {
	show := func(l []string) string { return strings.Join(l, ",") }
	return value[[]string]{p: p, show: show, parse: func(s string) ([]string, error) {
		return append(slices.Clone(*p), elements(s)...), nil
	}}
}

func elements(s string) []string {
	var l []string
	for e := range strings.SplitSeq(s, ",") {
		if e = strings.TrimSpace(e); e != "" {
			l = append(l, e)
		}
	}
	return l
}

// regexps appends. A comma does not separate patterns, they use it themselves.
func regexps(p *[]*regexp.Regexp) value[[]*regexp.Regexp] {
	show := func(l []*regexp.Regexp) string {
		texts := make([]string, len(l))
		for i, r := range l {
			texts[i] = r.String()
		}
		return strings.Join(texts, " ")
	}
	return value[[]*regexp.Regexp]{p: p, show: show, parse: func(s string) ([]*regexp.Regexp, error) {
		if s == "" {
			return *p, nil
		}
		r, err := regexp.Compile(s)
		if err != nil {
			return nil, fmt.Errorf("want a regular expression: %w", err)
		}
		return append(slices.Clone(*p), r), nil
	}}
}

// networkConfig reads the file at once, so that a wrong one is found at the start.
func networkConfig(p *string) value[string] {
	show := func(s string) string {
		if s == "" {
			return ""
		}
		return fmt.Sprintf("%d bytes of JSON", len(s)) // the backend's part may hold a key
	}
	return value[string]{p: p, hidden: true, show: show, parse: func(s string) (string, error) {
		if s == "" {
			return "", nil
		}
		if file, ok := strings.CutPrefix(s, "@"); ok {
			var err error
			if s, err = readConfig(file); err != nil {
				return "", fmt.Errorf("want JSON or @file: %w", err)
			}
		}
		if _, err := subnet.ParseConfig([]byte(s)); err != nil {
			return "", fmt.Errorf("want a network configuration: %w", err)
		}
		return s, nil
	}}
}

// MaxConfigSize bounds a network configuration, in bytes; etcd takes no larger value either.
const MaxConfigSize = 1 << 20

func readConfig(file string) (string, error) {
	raw, err := subnet.ReadFile(file, MaxConfigSize)
	return string(raw), err
}

// keyPrefix drops slashes at the end, so that "/" becomes empty and the keys under it start with one slash.
func keyPrefix(p *string) value[string] {
	v := text(p)
	v.parse = func(s string) (string, error) {
		if s == "" {
			return "", errors.New("want a key such as /coreos.com/network")
		}
		return strings.TrimRight(path.Clean(s), "/"), nil
	}
	return v
}

func showAddr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
