package options

import (
	"errors"
	"flag"
	"fmt"
	"strings"
)

// gathered passes values on and gathers what is wrong with them, so that all of it is reported at once.
type gathered struct {
	flag.Value
	name string
	errs *[]error
}

// Set implements flag.Value. It never fails.
func (g gathered) Set(s string) error {
	err := g.Value.Set(s)
	if err == nil {
		return nil
	}
	if h, ok := g.Value.(interface{ isHidden() bool }); ok && h.isHidden() {
		err = fmt.Errorf("%s is wrong: %w", Named(g.name), err)
	} else {
		err = fmt.Errorf("%s is %q: %w", Named(g.name), s, err)
	}
	*g.errs = append(*g.errs, err)
	return nil
}

// IsBoolFlag tells package flag that a switch needs no value.
func (g gathered) IsBoolFlag() bool {
	b, ok := g.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// ignoredValue takes any value and remembers that the flag was given.
type ignoredValue struct {
	name     string
	isSwitch bool
	given    *[]string
}

// Set implements flag.Value.
func (v ignoredValue) Set(string) error {
	*v.given = append(*v.given, "-"+v.name)
	return nil
}

func (v ignoredValue) String() string { return "" }

// IsBoolFlag tells package flag that a switch needs no value.
func (v ignoredValue) IsBoolFlag() bool { return v.isSwitch }

// Validate says what does not go together; what is wrong with a single value Parse has said. The error joins all.
func (o Options) Validate() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.KubeSubnetMgr && (o.EtcdEmbedded || o.NetworkConfig != "") {
		fail("%s is true: with the Kubernetes API as the store there is no etcd, want neither -etcd-embedded nor "+
			"-network-config",
			Named("kube-subnet-mgr"))
	}
	errs = append(errs, o.validateSecured()...)
	if (o.EtcdKeyfile == "") != (o.EtcdCertfile == "") {
		fail("%s is %q and %s is %q: want both or neither", Named("etcd-certfile"), o.EtcdCertfile, Named("etcd-keyfile"),
			o.EtcdKeyfile)
	}
	if (o.EtcdUsername == "") != (o.EtcdPassword == "") {
		fail("only one of %s and %s is set: want both or neither", Named("etcd-username"), Named("etcd-password"))
	}
	if o.SubnetLeaseRenewMargin >= o.SubnetLeaseTTL {
		fail("%s is %s: want less than %s, which is %s", Named("subnet-lease-renew-margin"),
			showDuration(o.SubnetLeaseRenewMargin),
			Named("subnet-lease-ttl"), showDuration(o.SubnetLeaseTTL))
	}
	if o.NetworkConfig != "" && o.NetConfigPath != "" {
		fail("%s and %s are both set: want the one to fill an empty etcd, or the other to replace what is in it",
			Named("network-config"), Named("net-config-path"))
	}
	return errors.Join(errs...)
}

// unencrypted returns the endpoints that are spoken to in plain text although certificates were given.
func (o Options) unencrypted() []string {
	if o.EtcdCAFile == "" && o.EtcdCertfile == "" {
		return nil
	}
	var plain []string
	for _, u := range o.EtcdEndpoints {
		if strings.HasPrefix(u, "http://") || strings.HasPrefix(u, "unix://") {
			plain = append(plain, WithoutUser(u))
		}
	}
	return plain
}

// ignoresConfigInEtcd reports whether the network configuration comes from a file although etcd is given. flannel reads
// that file with -kube-subnet-mgr only, and unit files have the flag beside those of etcd.
func (o Options) ignoresConfigInEtcd(given map[string]bool) bool {
	if o.KubeSubnetMgr || !given["net-config-path"] {
		return false
	}
	for name := range given {
		if strings.HasPrefix(name, "etcd-") {
			return true
		}
	}
	return false
}

// Named returns how messages name a flag: by its name and its environment variable.
func Named(name string) string { return fmt.Sprintf("-%s (%s)", name, Variable(name)) }
