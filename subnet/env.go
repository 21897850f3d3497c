package subnet

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// maxEnvSize bounds what is read of a subnet.env, in bytes; a real one has some two hundred.
const maxEnvSize = 64 << 10

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

// UnmarshalText reads the file. Unknown lines are skipped; a line of ours with a value that makes no sense is
// an error.
func (e *Env) UnmarshalText(text []byte) error {
	*e = Env{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		key, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		if !ok {
			continue
		}
		if err := e.set(key, strings.Trim(value, `"'`)); err != nil {
			return fmt.Errorf("%s=%.80s: %w", key, value, err)
		}
	}
	return lines.Err()
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

// WriteEnv writes subnet.env whole or not at all, with mode 0644, and creates its folder. It does nothing if
// the file has this content already.
func WriteEnv(path string, e Env) error {
	text, err := e.MarshalText()
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	err = writeFile(path, 0o644, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
	if err != nil {
		return fmt.Errorf("write subnet file %s: %w", path, err)
	}
	return nil
}

// ReadEnv reads subnet.env; the error wraps fs.ErrNotExist if there is none.
func ReadEnv(path string) (Env, error) {
	f, err := os.Open(path)
	if err != nil {
		return Env{}, fmt.Errorf("read subnet file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxEnvSize))
	if err != nil {
		return Env{}, fmt.Errorf("read subnet file %s: %w", path, err)
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
