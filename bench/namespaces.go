package main

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/test/cluster"
)

// benchNamespaces makes as many namespaces as --objects says, with something in each, and deletes them all, with every controller at work. A tenth is a row: what a
// namespace costs must not depend on how many there are.
func benchNamespaces(b *bench) {
	l := newLoad(startServer(b, "--no-agent", "--no-scheduler"))
	tenth := b.objects / 10
	var before standing
	cluster.Eventually(b, func() error { // once the cluster has made what every cluster has
		was := before
		var err error
		if before, err = l.standing(); err == nil && (before != was || before.accounts < before.namespaces) {
			time.Sleep(time.Second)
			err = fmt.Errorf("there are %+v, and a second ago %+v", before, was)
		}
		return err
	})
	name := func(i int) string { return fmt.Sprintf("tenant-%05d", i) }
	row := func(what string, do func(), wait func() error) {
		cpu, began := l.cpu(), time.Now()
		do()
		for err := wait(); err != nil; err = wait() {
			if time.Since(began) > 5*time.Minute {
				b.Fatalf("%s: %v", what, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		took, spent := time.Since(began), l.cpu()-cpu
		b.table(what, fmt.Sprintf("%.1f", took.Seconds()), fmt.Sprintf("%.2f", took.Seconds()*1e3/float64(tenth)), fmt.Sprintf("%.2f", spent.Seconds()*1e3/float64(tenth)),
			fmt.Sprintf("%.0f", l.memory().Resident))
	}
	b.table("namespaces", "s", "ms each", "ms of CPU each", "MB resident")
	for k := range 10 {
		row(fmt.Sprintf("made, up to %d", (k+1)*tenth), func() {
			l.measure(fmt.Sprintf("create namespaces (%d)", tenth), tenth, len(l.callers), func(caller, i int) error {
				ns, c := name(k*tenth+i), l.callers[caller].CoreV1()
				_, err := c.Namespaces().Create(l.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{})
				if err == nil {
					_, err = c.ConfigMaps(ns).Create(l.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "settings"}, Data: map[string]string{"of": ns}}, metav1.CreateOptions{})
				}
				return err
			})
		}, func() error { return l.beside(before, (k+1)*tenth) })
	}
	for k := range 10 {
		left := b.objects - (k+1)*tenth
		row(fmt.Sprintf("gone, down to %d", left), func() {
			l.measure(fmt.Sprintf("delete namespaces (%d)", tenth), tenth, len(l.callers), func(caller, i int) error {
				return l.callers[caller].CoreV1().Namespaces().Delete(l.ctx, name(k*tenth+i), metav1.DeleteOptions{})
			})
		}, func() error { return l.beside(before, left) })
	}
	b.tell()
}

// standing is what there is before the first.
type standing struct{ namespaces, accounts, maps int64 }

// standing counts by pages of one: a list would cost more than what it watches.
func (l *load) standing() (n standing, err error) {
	c, one := l.callers[0].CoreV1(), metav1.ListOptions{Limit: 1}
	count := func(m metav1.ListMeta, items int) int64 {
		if m.RemainingItemCount != nil {
			return *m.RemainingItemCount + int64(items)
		}
		return int64(items)
	}
	namespaces, err := c.Namespaces().List(l.ctx, one)
	if err != nil {
		return n, err
	}
	accounts, err := c.ServiceAccounts("").List(l.ctx, one)
	if err != nil {
		return n, err
	}
	maps, err := c.ConfigMaps("").List(l.ctx, one)
	if err != nil {
		return n, err
	}
	return standing{count(namespaces.ListMeta, len(namespaces.Items)), count(accounts.ListMeta, len(accounts.Items)), count(maps.ListMeta, len(maps.Items))}, nil
}

// beside says whether there are so many namespaces beside what was there before, and in each what it was made with and what controllers put into it.
func (l *load) beside(before standing, n int) error {
	now, err := l.standing()
	if err != nil {
		return err
	}
	if more := int64(n); now != (standing{before.namespaces + more, before.accounts + more, before.maps + 2*more}) {
		return fmt.Errorf("%+v, where there were %+v, and %d namespaces shall be there", now, before, n)
	}
	return nil
}
