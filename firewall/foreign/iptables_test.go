package foreign_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flanneld/firewall/foreign"
)

const (
	ours      = ":FLANNELD-FORWARD - [0:0]"
	fromOurs  = "-A FLANNELD-FORWARD -s 10.5.0.0/16 -j ACCEPT"
	toOurs    = "-A FLANNELD-FORWARD -d 10.5.0.0/16 -j ACCEPT"
	inPlace   = "-N FLANNELD-FORWARD\n" + fromOurs + "\n" + toOurs + "\n"
	dockerOff = "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n-N DOCKER\n-N DOCKER-USER\n" +
		"-A FORWARD -j DOCKER-USER\n-A FORWARD -o docker0 -j DOCKER\n"
)

func TestAcceptRulesStandWhereTheyAreMet(t *testing.T) {
	for name, tt := range map[string]struct {
		have string
		want []string
	}{
		"nothing where the host forwards everything": {
			have: "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n",
		},
		"in FORWARD where its policy drops": {
			have: "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n",
			want: []string{ours, fromOurs, toOurs, "-I FORWARD 1 -j FLANNELD-FORWARD"},
		},
		"behind the conditions of the administrator": {
			have: "-P FORWARD DROP\n-A FORWARD -s 10.5.9.9/32 -j DROP\n-A FORWARD -m conntrack --ctstate INVALID -j DROP\n",
			want: []string{ours, fromOurs, toOurs, "-I FORWARD 3 -j FLANNELD-FORWARD"},
		},
		"before a rule that rejects everything": {
			have: "-P FORWARD ACCEPT\n-A FORWARD -i eth7 -j ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited\n",
			want: []string{ours, fromOurs, toOurs, "-I FORWARD 2 -j FLANNELD-FORWARD"},
		},
		"before a commented rule that rejects everything": {
			have: "-P FORWARD ACCEPT\n-A FORWARD -m comment --comment \"no -j more\" -j DROP\n",
			want: []string{ours, fromOurs, toOurs, "-I FORWARD 1 -j FLANNELD-FORWARD"},
		},
		"in the chain that docker leaves to others, before its return": {
			have: dockerOff + "-A DOCKER-USER -s 192.0.2.66/32 -j DROP\n-A DOCKER-USER -j RETURN\n",
			want: []string{ours, fromOurs, toOurs, "-I DOCKER-USER 2 -j FLANNELD-FORWARD"},
		},
		"moved to docker's chain once docker has come": {
			have: dockerOff + inPlace + "-A FORWARD -j FLANNELD-FORWARD\n",
			want: []string{"-D FORWARD -j FLANNELD-FORWARD", "-I DOCKER-USER 1 -j FLANNELD-FORWARD"},
		},
		"in FORWARD where nothing leads to docker's chain": {
			have: "-P FORWARD DROP\n-N DOCKER-USER\n",
			want: []string{ours, fromOurs, toOurs, "-I FORWARD 1 -j FLANNELD-FORWARD"},
		},
		"once": {
			have: dockerOff + inPlace + "-A DOCKER-USER -j FLANNELD-FORWARD\n-A DOCKER-USER -j RETURN\n",
		},
		"not twice": {
			have: dockerOff + inPlace + "-A DOCKER-USER -j FLANNELD-FORWARD\n-A DOCKER-USER -j FLANNELD-FORWARD\n",
			want: []string{"-D DOCKER-USER -j FLANNELD-FORWARD", "-D DOCKER-USER -j FLANNELD-FORWARD",
				"-I DOCKER-USER 1 -j FLANNELD-FORWARD"},
		},
		"not behind the end": {
			have: dockerOff + inPlace + "-A DOCKER-USER -j RETURN\n-A DOCKER-USER -j FLANNELD-FORWARD\n",
			want: []string{"-D DOCKER-USER -j FLANNELD-FORWARD", "-I DOCKER-USER 1 -j FLANNELD-FORWARD"},
		},
		"the chain is put right": {
			have: dockerOff + "-N FLANNELD-FORWARD\n" + fromOurs + "\n-A DOCKER-USER -j FLANNELD-FORWARD\n",
			want: []string{ours, fromOurs, toOurs},
		},
		"gone where they are of no use any more": {
			have: "-P FORWARD ACCEPT\n" + inPlace + "-A FORWARD -j FLANNELD-FORWARD\n",
			want: []string{"-D FORWARD -j FLANNELD-FORWARD", "-F FLANNELD-FORWARD", "-X FLANNELD-FORWARD"},
		},
	} {
		got := foreign.PlanForward(tt.have, foreign.Rules{Networks: []netip.Prefix{net4}, Forward: true})
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestLeftoversOfFlannelAreFound(t *testing.T) {
	for name, tt := range map[string]struct {
		table, have string
		want        []string
	}{
		"none": {table: "nat", have: "-P POSTROUTING ACCEPT\n-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n"},
		"chain in nat": {
			table: "nat",
			have: "-P POSTROUTING ACCEPT\n-N FLANNEL-POSTRTG\n" +
				"-A POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG\n" +
				"-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n" +
				"-A FLANNEL-POSTRTG -s 10.5.0.0/16 -d 10.5.0.0/16 -m comment --comment \"flanneld masq\" -j RETURN\n",
			want: []string{"-D POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG", "-F FLANNEL-POSTRTG",
				"-X FLANNEL-POSTRTG"},
		},
		"rules of older versions": {
			table: "nat",
			have: "-P POSTROUTING ACCEPT\n-A POSTROUTING -s 10.5.0.0/16 -d 10.5.0.0/16 -m comment --comment \"flanneld " +
				"masq\" -j RETURN\n" +
				"-A POSTROUTING ! -s 10.5.0.0/16 -d 10.5.0.0/16 -m comment --comment \"flanneld masq\" -j MASQUERADE " +
				"--random-fully\n",
			want: []string{
				"-D POSTROUTING -s 10.5.0.0/16 -d 10.5.0.0/16 -m comment --comment \"flanneld masq\" -j RETURN",
				"-D POSTROUTING ! -s 10.5.0.0/16 -d 10.5.0.0/16 -m comment --comment \"flanneld masq\" -j MASQUERADE " +
					"--random-fully",
			},
		},
		"chain in filter": {
			table: "filter",
			have: "-P FORWARD DROP\n-N FLANNEL-FWD\n-A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD\n" +
				"-A FLANNEL-FWD -s 10.5.0.0/16 -j ACCEPT\n",
			want: []string{"-D FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD", "-F FLANNEL-FWD",
				"-X FLANNEL-FWD"},
		},
	} {
		if diff := cmp.Diff(tt.want, foreign.PlanLeftovers(tt.table, tt.have)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
