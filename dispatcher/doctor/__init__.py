"""Is this house fit for work?  Each check says what it found and, where something is not right, what to do.

What is on this machine is looked at first; then the network, all at once (`side_by_side`), each look with an end.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dispatcher.doctor import broker, installation, public_address, received_mail, sender
from dispatcher.doctor.check import Check, Verdict
from dispatcher.doctor.names import Names
from dispatcher.doctor.sender import Sender
from dispatcher.doctor.side_by_side import Look, look_side_by_side
from dispatcher.errors import DispatcherError, Refused
from dispatcher.mail import mail_host
from dispatcher.providers import providers_for
from dispatcher.providers.protocol import Provider, Trial
from dispatcher.providers.smtp.connection import server_at
from dispatcher.runtime import Runtime, open_runtime
from dispatcher.settings import Settings, load_settings
from dispatcher.shop import load_shop

__all__ = ["Check", "examine", "examine_mail"]

_TRIAL_SECONDS = 8.0


def examine(*, offline: bool = False, nameserver: str | None = None) -> list[Check]:
    """Return every check, in order; what cannot be looked at because something before it is wrong is left out.

    `offline`: only what is on this machine, and its database and broker.
    """
    checks: list[Check] = [installation.check_python()]
    from_email: str | None = None
    try:
        settings = load_settings()
        checks += installation.check_settings(settings)
        from_email = settings.from_email
        with open_runtime(settings) as runtime:
            checks += installation.check_runtime(runtime)
            checks += broker.look_at_broker(runtime.broker_url)
            from_email = from_email or _from_email(runtime)
    except DispatcherError as error:
        checks += [Check("start", "wrong", line) for line in str(error).splitlines()]
        if isinstance(error, Refused):  # the settings are good: the world outside can be looked at all the same
            return checks + _outside(load_settings(), from_email, nameserver, offline=offline)
        return checks
    return checks + _outside(settings, from_email, nameserver, offline=offline)


def examine_mail(path: Path, *, offline: bool = False, nameserver: str | None = None) -> list[Check]:
    """Return what a mail that was received shows about its signature; Refused if the file is no mail."""
    mail = received_mail.read_mail(path)
    look: Look = lambda: received_mail.look_at_mail(mail, None if offline else Names(nameserver))  # noqa: E731
    return look_side_by_side([("received mail", look)])


def _from_email(runtime: Runtime) -> str | None:
    with runtime.database.connect() as connection:
        try:
            return load_shop(connection).shop.from_email
        except Refused:  # nothing is applied yet
            return None


def _outside(settings: Settings, from_email: str | None, nameserver: str | None, *, offline: bool) -> list[Check]:
    if offline:
        return [Check("network", "ok", "not looked at (--offline)")]
    looks: list[tuple[str, Look]] = []
    if settings.public_url.startswith("https://"):
        looks.append(("public address", lambda: public_address.look_at_public_address(settings.public_url)))
    looks += [
        (f"{channel} provider", _trying(channel, provider)) for channel, provider in providers_for(settings).items()
    ]
    checks: list[Check] = []
    if from_email is not None:
        who = _sender(settings, from_email)
        if who.is_nobodys:
            verdict: Verdict = "look" if settings.email_provider == "sandbox" else "wrong"
            to_do = "write a from_email under [shop] whose domain is yours"
            checks.append(
                Check("sender", verdict, f"{who.domain} is a name for examples: no mail can come from it", to_do)
            )
        else:
            looks += _naming(who, nameserver)
    return checks + look_side_by_side(looks)


def _naming(who: Sender, nameserver: str | None) -> list[tuple[str, Look]]:
    try:
        return sender.looks_at(who, Names(nameserver))
    except DispatcherError as error:
        said = str(error)
        return [("DNS", lambda: [Check("DNS", "look", said, "SPF, DKIM, DMARC and MX were not looked at")])]


def _sender(settings: Settings, from_email: str) -> Sender:
    smtp_url = settings.smtp_url.get_secret_value() if settings.smtp_url else None
    selectors = (one.strip() for one in (settings.dkim_selectors or "").split(","))
    return Sender(
        domain=mail_host(from_email),
        provider=settings.email_provider,
        smtp_host=server_at(smtp_url).host if smtp_url and settings.email_provider == "smtp" else None,
        selectors=tuple(one for one in selectors if one),
    )


def _trying(channel: str, provider: Provider) -> Look:
    return lambda: [
        check
        for trial in provider.try_account(_TRIAL_SECONDS)
        for check in _checks_of(f"{channel} provider", provider, trial)
    ]


def _checks_of(name: str, provider: Provider, trial: Trial) -> list[Check]:
    verdicts: dict[bool | None, Callable[[], Check]] = {
        True: lambda: Check(name, "ok", trial.detail),
        False: lambda: Check(name, "wrong", trial.detail, trial.to_do),
        None: lambda: Check(name, "look", trial.detail, trial.to_do),
    }
    checks = [verdicts[trial.ok]()]
    if trial.ahead is not None:
        checks.append(installation.judge_skew(provider.name, trial.ahead))
    return checks
