package subnet

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// MaxEnvSize bounds what is read of a subnet.env, in bytes; a real one has some two hundred. Others may have appended
// to it.
const MaxEnvSize = 1 << 20

// Env is the content of subnet.env, the file that tells the container runtime which addresses this host has.
type Env struct {
	Networks []netip.Prefix // ranges of the cluster
	Subnets  []netip.Prefix // this host's subnets
	MTU      int            // bytes
	IPMasq   bool           // whether the daemon masquerades, so that the runtime must not
}

// MarshalText renders the file. A subnet stands there as its first usable address with the prefix length.
func (e Env) MarshalText() ([]byte, error) {
	var b bytes.Buffer
	for _, fam := range []struct {
		is4    bool
		prefix string
	}{{true, "FLANNEL_"}, {false, "FLANNEL_IPV6_"}} {
		if networks := ofFamily(e.Networks, fam.is4); len(networks) > 0 {
			fmt.Fprintf(&b, "%sNETWORK=%s\n", fam.prefix, joinPrefixes(networks))
		}
		for _, s := range ofFamily(e.Subnets, fam.is4) {
			fmt.Fprintf(&b, "%sSUBNET=%s\n", fam.prefix, netip.PrefixFrom(s.Addr().Next(), s.Bits()))
		}
	}
	fmt.Fprintf(&b, "FLANNEL_MTU=%d\nFLANNEL_IPMASQ=%t\n", e.MTU, e.IPMasq)
	return b.Bytes(), nil
}

// envKeys are the keys of the lines that are ours.
var envKeys = []string{
	"FLANNEL_NETWORK", "FLANNEL_SUBNET", "FLANNEL_IPV6_NETWORK", "FLANNEL_IPV6_SUBNET", "FLANNEL_MTU", "FLANNEL_IPMASQ",
}

// envLine splits a line that is ours. Some write "export " before it, so that a shell passes it on.
func envLine(line string) (key, value string, ours bool) {
	line = strings.TrimSpace(line)
	if rest, ok := strings.CutPrefix(line, "export"); ok && strings.TrimLeft(rest, " \t") != rest {
		line = strings.TrimSpace(rest)
	}
	key, value, _ = strings.Cut(line, "=")
	return key, strings.Trim(value, `"'`), slices.Contains(envKeys, key)
}

// EnvValues returns the values of the lines of subnet.env that are ours. As in a shell, the last line of a key counts.
func EnvValues(text []byte) map[string]string {
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ours := envLine(line); ours {
			values[key] = value
		}
	}
	return values
}

// UnmarshalText reads the file. Unknown lines are skipped; a line of ours with an invalid value is
// an error.
func (e *Env) UnmarshalText(text []byte) error {
	*e = Env{}
	values := EnvValues(text)
	for _, key := range envKeys {
		value, ok := values[key]
		if !ok {
			continue
		}
		if err := e.set(key, value); err != nil {
			return fmt.Errorf("%s=%.80s: %w", key, value, err)
		}
	}
	return nil
}

func (e *Env) set(key, value string) (err error) {
	switch key {
	case "FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK":
		for s := range strings.SplitSeq(value, ",") {
			p, err := netip.ParsePrefix(strings.TrimSpace(s))
			if err != nil {
				return err
			}
			e.Networks = append(e.Networks, p.Masked())
		}
	case "FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET":
		p, err := netip.ParsePrefix(value)
		if err != nil {
			return err
		}
		e.Subnets = append(e.Subnets, p.Masked())
	case "FLANNEL_MTU":
		e.MTU, err = strconv.Atoi(value)
	case "FLANNEL_IPMASQ":
		e.IPMasq, err = strconv.ParseBool(value)
	}
	return err
}

// WriteEnv writes subnet.env whole or not at all, with mode 0644, and creates its folder. Lines that are not ours stay,
// behind ours: scripts append their own. It does nothing if the file has this content already.
func WriteEnv(path string, e Env) error {
	text, err := e.MarshalText()
	if err != nil {
		return err
	}
	old, err := ReadFile(path, MaxEnvSize)
	if err == nil {
		if sameEnv(old, text) {
			return nil
		}
		text = append(text, foreignLines(old)...)
	}
	err = WriteFile(path, 0o644, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
	if err != nil {
		return fmt.Errorf("write subnet file %s: %w", path, err)
	}
	return nil
}

// sameEnv reports whether the lines of a file that are ours are just those that are wanted, wherever they stand.
func sameEnv(text, want []byte) bool {
	var ours strings.Builder
	for line := range strings.Lines(string(text)) {
		if _, _, is := envLine(line); is {
			ours.WriteString(line)
		}
	}
	return ours.String() == string(want)
}

// foreignLines returns the lines of subnet.env that are not ours, each with its end.
func foreignLines(text []byte) []byte {
	var out []byte
	for line := range strings.Lines(string(text)) {
		if _, _, ours := envLine(line); !ours {
			out = append(out, strings.TrimSuffix(line, "\n")+"\n"...)
		}
	}
	return out
}

// ReadEnv reads subnet.env; the error wraps fs.ErrNotExist if there is none.
func ReadEnv(path string) (Env, error) {
	text, err := ReadFile(path, MaxEnvSize)
	if err != nil {
		return Env{}, fmt.Errorf("read subnet file: %w", err)
	}
	var e Env
	if err := e.UnmarshalText(text); err != nil {
		return Env{}, fmt.Errorf("read subnet file %s: %w", path, err)
	}
	return e, nil
}

func ofFamily(prefixes []netip.Prefix, is4 bool) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range prefixes {
		if p.Addr().Is4() == is4 {
			out = append(out, p)
		}
	}
	return out
}

func joinPrefixes(prefixes []netip.Prefix) string {
	parts := make([]string, len(prefixes))
	for i, p := range prefixes {
		parts[i] = p.String()
	}
	return strings.Join(parts, ",")
}
