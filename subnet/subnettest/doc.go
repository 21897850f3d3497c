// Package subnettest has a subnet.Store in memory that fails on demand, and the contract that every Store passes.
package subnettest
