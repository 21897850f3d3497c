package lab_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"flanneld/api"
	"flanneld/lab"
)

// output is what a program has printed so far.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func TestFlannelctlWatchesAndEdits(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	e := c.etcd(vxlanConfig)
	h := c.host("host1")
	c.flanneld(h, e)
	ctx, cancel := context.WithCancel(c.ctx)
	var out output
	cmd := exec.CommandContext(ctx, binaries.Flannelctl, "leases", "watch", "--subnet-file", h.SubnetFile())
	cmd.Stdout = &out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	c.ok(h.Do(cmd.Start))
	sees := func(text string, again func() error) {
		c.await(func() error {
			if err := again(); err != nil {
				return err
			}
			if !strings.Contains(out.String(), text) {
				return fmt.Errorf("watch has not printed %q but\n%s", text, out.String())
			}
			return nil
		})
	}
	sees(" listed "+ctlJSON[api.Status](c, h, "status").Subnets[0].String()+" "+h.Addr.String(),
		func() error { return nil })
	// Until the watch stands, no change is printed: it is made again.
	sees(" added 10.5.240.0/24 198.18.0.77 reservation", func() error {
		return e.Put(c.ctx, "subnets/10.5.240.0-24", `{"PublicIP":"198.18.0.77","BackendType":"vxlan"}`)
	})
	sees(" changed 10.5.240.0/24 198.18.0.77", func() error {
		return e.Put(c.ctx, "subnets/10.5.240.0-24", `{"PublicIP":"198.18.0.77","BackendType":"vxlan"}`)
	})
	sees(" deleted 10.5.240.0/24 198.18.0.77", func() error { return e.Delete(c.ctx, "subnets/10.5.240.0-24") })
	c.edit(h)
	sees("network configuration changed", func() error { return nil })
	if strings.Contains(out.String(), "deleted\n") {
		t.Errorf("watch prints changes of nothing:\n%s", out.String())
	}
	cancel()
	if err := cmd.Wait(); err != nil && ctx.Err() == nil {
		t.Errorf("watch ends with %v", err)
	}
}

// edit changes the configuration with an editor that is a script.
func (c *cluster) edit(h *lab.Host) {
	editor := filepath.Join(h.Dir(), "editor")
	run := func(script string) (string, error) {
		c.ok(os.WriteFile(editor, []byte("#!/bin/sh\n"+script+"\n"), 0o755))
		return h.Exec(c.ctx, "env", "EDITOR="+editor, "TMPDIR="+h.Dir(), binaries.Flannelctl,
			"network", "edit", "--subnet-file", h.SubnetFile())
	}
	if out, err := run("true"); err != nil || !strings.Contains(out, "nothing changed") {
		c.t.Errorf("an editor that changes nothing: %v %s", err, out)
	}
	if _, err := run(`sed -i s,10.5.0.0/16,10.5.0.0/31, "$1"`); err == nil || !strings.Contains(err.Error(), "too small") {
		c.t.Errorf("a configuration that is wrong: %v", err)
	}
	if out, err := run(`sed -i 's,"Network",  "SubnetMin": "10.5.2.0"\, "Network",' "$1"`); err != nil {
		c.t.Errorf("a good change: %v %s", err, out)
	}
	if got := c.ctlOK(h, "network", "get"); !strings.Contains(got, "10.5.2.0") {
		c.t.Errorf("the change was not written: %s", got)
	}
}

func TestCleanupTakesAFormerFlannelAway(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	h := c.host("host1")
	c.ok(h.Run("iptables-nft -P FORWARD ACCEPT", "iptables-nft -t nat -P POSTROUTING ACCEPT",
		"ip6tables-nft -P FORWARD ACCEPT"))
	c.ok(h.Run("iptables-nft -A FORWARD -s 192.0.2.0/24 -j ACCEPT"))
	before := c.hostState(h)
	rules := filepath.Join(h.Dir(), "rules")
	c.ok(os.WriteFile(rules, []byte(`*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -s 10.5.0.0/16 -d 10.5.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.5.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE
COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s 10.5.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
`), 0o600))
	c.ok(os.MkdirAll(filepath.Dir(h.SubnetFile()), 0o755))
	c.ok(os.WriteFile(h.SubnetFile(),
		[]byte("FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.9.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"), 0o644))
	c.ok(h.Run("iptables-nft-restore --noflush "+rules,
		"ip link add flannel.1 type vxlan id 1 dstport 8472 local "+h.Addr.String()+" dev eth0 nolearning",
		"ip addr add 10.5.9.0/32 dev flannel.1", "ip link set flannel.1 up",
		"ip route add 10.5.10.0/24 via 10.5.10.0 dev flannel.1 onlink",
		"ip route add 10.5.11.0/24 via 198.18.0.1 dev eth0 proto boot",
		"nft add table ip flannel-ipv4", "nft add table ip6 flannel-ipv6"))
	c.ctlOK(h, "cleanup", "--flannel", "--dry-run")
	out := c.ctlOK(h, "cleanup", "--flannel")
	if got := c.hostState(h); got != before {
		t.Errorf("before flannel:\n%s\nafter cleanup (%s):\n%s", before, out, got)
	}
}

func TestLogLinesAreJSONIfAsked(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	d := c.flanneld(c.host("host1"), c.etcd(vxlanConfig), "-log-format", "json", "-v", "1")
	for line := range strings.Lines(d.Log()) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil || v["msg"] == nil {
			t.Errorf("no JSON: %s", line)
		}
	}
}
