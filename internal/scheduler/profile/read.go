package profile

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	config "k8s.io/kube-scheduler/config/v1"
)

// Read takes a file in. Its errors are one line that names the setting, the file and the field.
func Read(key, file string) (*Settings, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	c, err := decode(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %s", key, file, strings.Join(strings.Fields(err.Error()), " "))
	}
	out, errs := settings(c)
	if len(errs) > 0 {
		return nil, fmt.Errorf("%s: %s: %w", key, file, errs.ToAggregate())
	}
	return out, nil
}

func decode(raw []byte) (*config.KubeSchedulerConfiguration, error) {
	known := runtime.NewScheme()
	if err := config.AddToScheme(known); err != nil {
		return nil, err
	}
	decoder := serializer.NewCodecFactory(known, serializer.EnableStrict).UniversalDeserializer()
	obj, gvk, err := decoder.Decode(raw, nil, nil)
	if err != nil {
		return nil, err
	}
	c, ok := obj.(*config.KubeSchedulerConfiguration)
	if !ok {
		return nil, fmt.Errorf("kind: %s is not KubeSchedulerConfiguration", gvk.Kind)
	}
	return c, c.DecodeNestedObjects(decoder)
}

// settings checks a configuration and turns it into what the scheduler asks.
func settings(c *config.KubeSchedulerConfiguration) (*Settings, field.ErrorList) {
	out := Default()
	errs := out.takeTimes(c)
	errs = append(errs, out.takeElection(c)...)
	if c.ClientConnection.Burst < 0 {
		errs = append(errs, field.Invalid(field.NewPath("clientConnection", "burst"), c.ClientConnection.Burst, "must be non-negative"))
	}
	errs = append(errs, checkShare(c.PercentageOfNodesToScore, field.NewPath("percentageOfNodesToScore"))...)
	if c.Parallelism != nil && *c.Parallelism <= 0 {
		errs = append(errs, field.Invalid(field.NewPath("parallelism"), *c.Parallelism, "should be an integer value greater than zero"))
	}
	out.Extenders = c.Extenders
	errs = append(errs, checkExtenders(c.Extenders)...)
	if len(c.Profiles) > 0 {
		out.Profiles = map[string]*Profile{}
	}
	at := map[string]*field.Path{}
	for k := range c.Profiles {
		path := field.NewPath("profiles").Index(k)
		name, p, wrong := read(&c.Profiles[k], path, len(c.Profiles) == 1)
		errs = append(errs, wrong...)
		if first, twice := at[name]; twice {
			errs = append(errs, field.Duplicate(path.Child("schedulerName"), first.String()))
		}
		at[name] = path.Child("schedulerName")
		out.Profiles[name] = p
		if a, b := queueOf(&c.Profiles[0]), queueOf(&c.Profiles[k]); !equality.Semantic.DeepEqual(a, b) {
			errs = append(errs, field.Invalid(path.Child("plugins", "queueSort"), b, "must be the same for all profiles"))
		}
	}
	out.leaveToExtenders()
	for name, p := range out.Profiles {
		if reflect.DeepEqual(p, plain()) {
			out.Profiles[name] = nil
		}
	}
	number := 0
	for _, p := range out.Profiles {
		if p != nil {
			number++
			p.Number = number
		}
	}
	return out, errs
}

// queueOf is what a profile says of the queue, which all have in common.
func queueOf(c *config.KubeSchedulerProfile) (s config.PluginSet) {
	if c.Plugins != nil {
		s = c.Plugins.QueueSort
	}
	return s
}

// plain is a profile that is upstream's default.
func plain() *Profile {
	return &Profile{
		Weights: Upstream, System: true, HardWeight: 1, TryShare: 10, TryLeast: 100, BindTimeout: 10 * time.Minute, Devices: upstreamDevices,
		off: map[string]bool{},
	}
}

func read(c *config.KubeSchedulerProfile, path *field.Path, only bool) (name string, p *Profile, errs field.ErrorList) {
	switch {
	case c.SchedulerName != nil && *c.SchedulerName != "":
		name = *c.SchedulerName
	case only && c.SchedulerName == nil:
		name = DefaultName
	default:
		errs = append(errs, field.Required(path.Child("schedulerName"), ""))
	}
	errs = append(errs, checkShare(c.PercentageOfNodesToScore, path.Child("percentageOfNodesToScore"))...)
	p = plain()
	on, wrong := resolve(c.Plugins, path.Child("plugins"))
	errs = append(errs, wrong...)
	on.apply(p)
	seen := map[string]bool{}
	for k := range c.PluginConfig {
		one, path := &c.PluginConfig[k], path.Child("pluginConfig").Index(k)
		switch {
		case seen[one.Name]:
			errs = append(errs, field.Duplicate(path, one.Name))
		case removed[one.Name]:
			errs = append(errs, field.Invalid(path, one.Name, wasRemoved))
		case pluginNamed(one.Name) == nil:
			errs = append(errs, field.NotSupported(path.Child("name"), one.Name, names()))
		case one.Args.Object == nil && len(one.Args.Raw) > 0:
			errs = append(errs, field.Invalid(path.Child("args"), one.Name, "the plugin takes no arguments"))
		default:
			errs = append(errs, p.take(one.Args.Object, path.Child("args"))...)
		}
		seen[one.Name] = true
	}
	return name, p, errs
}

func checkShare(share *int32, path *field.Path) field.ErrorList {
	if share == nil {
		return nil
	}
	if *share < 0 || *share > 100 {
		return field.ErrorList{field.Invalid(path, *share, "not in valid range [0-100]")}
	}
	return nil
}

func (s *Settings) takeTimes(c *config.KubeSchedulerConfiguration) (errs field.ErrorList) {
	if v := c.PodInitialBackoffSeconds; v != nil {
		s.InitialBackoff = time.Duration(*v) * time.Second
		if *v <= 0 {
			errs = append(errs, field.Invalid(field.NewPath("podInitialBackoffSeconds"), *v, "must be greater than 0"))
		}
	}
	if v := c.PodMaxBackoffSeconds; v != nil {
		s.MaxBackoff = time.Duration(*v) * time.Second
	}
	if s.MaxBackoff < s.InitialBackoff {
		errs = append(errs, field.Invalid(field.NewPath("podMaxBackoffSeconds"), int64(s.MaxBackoff.Seconds()), "must be greater than or equal to PodInitialBackoffSeconds"))
	}
	return errs
}

// takeElection differs from upstream's defaults in one thing: there is no election unless somebody asks for it.
func (s *Settings) takeElection(c *config.KubeSchedulerConfiguration) (errs field.ErrorList) {
	l, path := &c.LeaderElection, field.NewPath("leaderElection")
	e := &s.Election
	e.Elect = l.LeaderElect != nil && *l.LeaderElect
	if l.ResourceLock != "" && l.ResourceLock != "leases" {
		errs = append(errs, field.Invalid(path.Child("resourceLock"), l.ResourceLock, `resourceLock value must be "leases"`))
	}
	if l.ResourceName != "" {
		e.Name = l.ResourceName
	}
	if l.ResourceNamespace != "" {
		e.Namespace = l.ResourceNamespace
	}
	for _, d := range []struct {
		from time.Duration
		to   *time.Duration
		name string
	}{
		{l.LeaseDuration.Duration, &e.LeaseDuration, "leaseDuration"}, {l.RenewDeadline.Duration, &e.RenewDeadline, "renewDeadline"},
		{l.RetryPeriod.Duration, &e.RetryPeriod, "retryPeriod"},
	} {
		if d.from != 0 {
			*d.to = d.from
		}
		if d.from < 0 {
			errs = append(errs, field.Invalid(path.Child(d.name), d.from.String(), "must be greater than zero"))
		}
	}
	if e.LeaseDuration <= e.RenewDeadline {
		errs = append(errs, field.Invalid(path.Child("leaseDuration"), e.RenewDeadline.String(), "must be greater than `RenewDeadline`"))
	}
	if e.RenewDeadline <= e.RetryPeriod*12/10 {
		errs = append(errs, field.Invalid(path.Child("renewDeadline"), e.RenewDeadline.String(), "must be greater than 1.2 times retryPeriod"))
	}
	return errs
}

func checkExtenders(list []config.Extender) (errs field.ErrorList) {
	binders, managed := 0, map[string]bool{}
	for k := range list {
		e, path := &list[k], field.NewPath("extenders").Index(k)
		if !strings.HasPrefix(e.URLPrefix, "http://") && !strings.HasPrefix(e.URLPrefix, "https://") {
			errs = append(errs, field.Invalid(path.Child("urlPrefix"), e.URLPrefix, "must be a URL such as http://127.0.0.1:8888/scheduler"))
		}
		if e.PrioritizeVerb != "" && e.Weight <= 0 {
			errs = append(errs, field.Invalid(path.Child("weight"), e.Weight, "must have a positive weight applied to it"))
		}
		if e.BindVerb != "" {
			binders++
		}
		if e.HTTPTimeout.Duration < 0 {
			errs = append(errs, field.Invalid(path.Child("httpTimeout"), e.HTTPTimeout.Duration.String(), "must be greater than zero"))
		}
		if t := e.TLSConfig; t != nil && t.Insecure && (t.CAFile != "" || len(t.CAData) > 0) {
			errs = append(errs, field.Invalid(path.Child("tlsConfig", "insecure"), true, "an authority is of no use when certificates are not verified"))
		}
		for m := range e.ManagedResources {
			name, path := e.ManagedResources[m].Name, path.Child("managedResources").Index(m).Child("name")
			errs = append(errs, checkManaged(name, path)...)
			if managed[name] {
				errs = append(errs, field.Invalid(path, name, "duplicate extender managed resource name"))
			}
			managed[name] = true
		}
	}
	if binders > 1 {
		errs = append(errs, field.Invalid(field.NewPath("extenders"), fmt.Sprintf("found %d extenders implementing bind", binders), "only one extender can implement bind"))
	}
	return errs
}

// checkManaged wants an extended resource: of a domain that is not Kubernetes' own, and such that a quota can name requests for it.
func checkManaged(name string, path *field.Path) (errs field.ErrorList) {
	for _, wrong := range validation.IsQualifiedName(name) {
		errs = append(errs, field.Invalid(path, name, wrong))
	}
	if len(errs) == 0 && (!extended(corev1.ResourceName(name)) ||
		len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+name)) > 0) {
		errs = append(errs, field.Invalid(path, name, "is an invalid extended resource name"))
	}
	return errs
}

// leaveToExtenders has resources ignored that extenders see to.
func (s *Settings) leaveToExtenders() {
	for k := range s.Extenders {
		for _, r := range s.Extenders[k].ManagedResources {
			if !r.IgnoredByScheduler {
				continue
			}
			for name, p := range s.Profiles {
				if p == nil {
					p = plain()
					s.Profiles[name] = p
				}
				p.ignore(corev1.ResourceName(r.Name))
			}
		}
	}
}
