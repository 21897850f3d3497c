package subnet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Config is the network configuration, validated and with its defaults filled in.
type Config struct {
	Pools          []Pool // one for each enabled family, IPv4 first
	EnableNFTables bool   // accepted for compatibility: the firewall is nftables anyway
	BackendType    string // lower case
	Backend        []byte // the JSON object "Backend" as it was given, nil if there is none
	// Next is the backend that the network is to move to, Previous the one that it comes from: at most one of them is
	// set, and hosts have it beside Backend. Migrated is what the last move began with, to be left without further ado.
	Next, Previous, Migrated Setting
}

// Pool returns the pool that a prefix of this family belongs to.
func (c Config) Pool(prefix netip.Prefix) (Pool, bool) {
	i := slices.IndexFunc(c.Pools, func(p Pool) bool { return p.Network.Addr().Is4() == prefix.Addr().Is4() })
	if i < 0 {
		return Pool{}, false
	}
	return c.Pools[i], true
}

// Networks returns the ranges of the cluster, IPv4 first.
func (c Config) Networks() []netip.Prefix {
	networks := make([]netip.Prefix, len(c.Pools))
	for i, p := range c.Pools {
		networks[i] = p.Network
	}
	return networks
}

// Assigned returns the configuration for a store that assigns the subnets itself: of any length, anywhere in the
// network.
func (c Config) Assigned() Config {
	c.Pools = slices.Clone(c.Pools)
	for i := range c.Pools {
		c.Pools[i].SubnetLen = 0
	}
	return c
}

// family is one half of the configuration: the names of its keys and the bounds of its lengths.
type family struct {
	network, length, min, max string
	bits                      int // of an address
	usualLen                  int // the length of a lease in a network of any size
	maxLen                    int
}

var (
	ipv4 = family{"Network", "SubnetLen", "SubnetMin", "SubnetMax", 32, 24, 30}
	ipv6 = family{"IPv6Network", "IPv6SubnetLen", "IPv6SubnetMin", "IPv6SubnetMax", 128, 64, 126}
)

// Bounds of the network configuration and of the name of a backend in it, in bytes.
const (
	maxConfig = 64 << 10
	maxKind   = 64
)

// ParseConfig reads the JSON object under PREFIX/config. Names of keys are matched without regard to case,
// unknown keys are ignored. The error joins everything that is wrong with it.
func ParseConfig(text []byte) (Config, error) {
	object, err := parseObject(text)
	if err != nil {
		return Config{}, err
	}
	f := fields{object: object}
	enable4 := field(&f, "EnableIPv4", true, "true or false")
	enable6 := field(&f, "EnableIPv6", false, "true or false")
	c := Config{EnableNFTables: field(&f, "EnableNFTables", false, "true or false")}
	if enable4 {
		c.Pools = append(c.Pools, f.pool(ipv4))
	}
	if enable6 {
		c.Pools = append(c.Pools, f.pool(ipv6))
	}
	if len(c.Pools) == 0 {
		f.fail("EnableIPv4 and EnableIPv6 are both false: enable one of them")
	}
	f.settings(&c)
	if err := errors.Join(f.errs...); err != nil {
		return Config{}, err
	}
	return c, nil
}

func parseObject(text []byte) (map[string]json.RawMessage, error) {
	if len(text) > maxConfig {
		return nil, fmt.Errorf("%d bytes, more than %d", len(text), maxConfig)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	var object map[string]json.RawMessage
	if err := d.Decode(&object); err != nil || object == nil {
		return nil, fmt.Errorf(`not a JSON object such as {"Network": "10.5.0.0/16"}: %w`, orNull(err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("text after the closing brace of the JSON object")
	}
	return object, nil
}

func orNull(err error) error {
	if err == nil {
		return errors.New("it is null")
	}
	return err
}

// fields takes typed values out of a JSON object and collects what is wrong with them.
type fields struct {
	object map[string]json.RawMessage
	errs   []error
}

func (f *fields) fail(format string, args ...any) {
	f.errs = append(f.errs, fmt.Errorf(format, args...))
}

// lookup finds a key: the exact spelling first, else any that differs in case only.
func (f *fields) lookup(key string) (json.RawMessage, bool) {
	if raw, ok := f.object[key]; ok {
		return raw, string(raw) != "null"
	}
	for _, name := range slices.Sorted(maps.Keys(f.object)) {
		if strings.EqualFold(name, key) {
			return f.object[name], string(f.object[name]) != "null"
		}
	}
	return nil, false
}

func field[T any](f *fields, key string, otherwise T, want string) T {
	raw, ok := f.lookup(key)
	if !ok {
		return otherwise
	}
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		f.fail("%s is %.80s, want %s", key, raw, want)
		return otherwise
	}
	return v
}

func (f *fields) pool(fam family) Pool {
	text := field(f, fam.network, "", "a string with a prefix")
	if text == "" {
		f.fail("%s is missing: the range that all subnets are leased from", fam.network)
		return Pool{}
	}
	network, err := netip.ParsePrefix(text)
	if err != nil || network.Addr().BitLen() != fam.bits || network.Addr().Is4In6() {
		f.fail("%s is %.80q, want an %s prefix", fam.network, text, fam.name())
		return Pool{}
	}
	p := Pool{Network: network.Masked()}
	if p.Network.Bits() > fam.maxLen-2 {
		f.fail("%s is %s, too small for four subnets: the smallest usable is a /%d", fam.network, p.Network, fam.maxLen-2)
		return Pool{}
	}
	if p.SubnetLen = f.subnetLen(fam, p.Network); p.SubnetLen == 0 {
		return Pool{}
	}
	first := netip.PrefixFrom(p.Network.Addr(), p.SubnetLen)
	second := lastAddr(first).Next()
	last := netip.PrefixFrom(lastAddr(p.Network), p.SubnetLen).Masked().Addr()
	p.Min = f.bound(fam.min, p, second)
	p.Max = f.bound(fam.max, p, last)
	if p.Max.Less(p.Min) {
		f.fail("%s %s is above %s %s", fam.min, p.Min, fam.max, p.Max)
	}
	return p
}

func (fam family) name() string {
	if fam.bits == 32 {
		return "IPv4"
	}
	return "IPv6"
}

// subnetLen returns 0 after having reported an error.
func (f *fields) subnetLen(fam family, network netip.Prefix) int {
	least := network.Bits() + 2
	usual := max(fam.usualLen, least)
	n := field(f, fam.length, 0, "a number of bits")
	if n == 0 {
		return usual
	}
	if n < least || n > fam.maxLen {
		f.fail("%s is %d, want %d to %d for the network %s (room for four subnets)", fam.length, n, least, fam.maxLen,
			network)
		return 0
	}
	return n
}

func (f *fields) bound(key string, p Pool, otherwise netip.Addr) netip.Addr {
	text := field(f, key, "", "a string with an address")
	if text == "" {
		return otherwise
	}
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil || a.Zone() != "":
		f.fail("%s is %.80q, want an address", key, text)
	case !p.Network.Contains(a):
		f.fail("%s %s is outside %s", key, a, p.Network)
	case netip.PrefixFrom(a, p.SubnetLen).Masked().Addr() != a:
		f.fail("%s %s is not the first address of a /%d", key, a, p.SubnetLen)
	default:
		return a
	}
	return otherwise
}

// UDP is the backend of configurations and records that name none.
const UDP = "udp"

// settings reads the backends. Without the key Backend that is udp.
func (f *fields) settings(c *Config) {
	main := f.setting("Backend")
	if _, ok := f.lookup("Backend"); !ok {
		main.Type = UDP
	}
	c.BackendType, c.Backend = main.Type, main.Object
	c.Next, c.Previous, c.Migrated = f.setting("Next"), f.setting("Previous"), f.setting("Migrated")
	if c.Next.Type != "" && c.Previous.Type != "" {
		f.fail("Next and Previous are both set: a network moves from one backend to one other")
	}
}
