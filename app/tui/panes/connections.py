"""The connections pane: a row per peer (spec 7, pane 2)."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import BindingType

from app.tui import rows
from app.tui.actions import Facts
from app.tui.panes.pane import Pane, bindings
from app.tui.present import Snapshot, name
from app.tui.screens.details import DetailsScreen
from app.tui.table import RowList, Table
from core.api import PeerStatus

NO_PEERS = """No peer yet. Peers know each other by certificate.

On the other host:   realize id > desk.pem
Bring it here, then: realize peer add desk --cert desk.pem
(and --address HOST:9771 if it listens)"""


class ConnectionsPane(Pane):
    """The peers, in the order of the config."""

    pane = "connections"
    columns = rows.PEER_COLUMNS
    BINDINGS: ClassVar[list[BindingType]] = bindings("connections")

    def about(self, snapshot: Snapshot) -> object:
        """Return what is shown of a snapshot."""
        peers = snapshot.status.peers if snapshot.status is not None else None
        return peers, snapshot.peer_rates, snapshot.now_ns

    def show(self, snapshot: Snapshot) -> None:
        """Show the peers."""
        super().show(snapshot)
        if snapshot.status is None:
            return
        peers = snapshot.status.peers
        histories = dict(snapshot.peer_rates)
        self.table.show(
            RowList([rows.peer_row(peer, histories.get(peer.name, ()), snapshot.now_ns) for peer in peers]),
        )
        self.set_empty("" if peers else NO_PEERS)
        up = sum(peer.state == "connected" for peer in peers)
        self.set_title(f"{up} of {len(peers)} up" if peers else "")

    def _peer(self) -> PeerStatus | None:
        peers = self.snapshot.status.peers if self.snapshot.status is not None else ()
        return peers[self.table.cursor] if self.table.cursor < len(peers) else None

    def facts(self) -> Facts:
        """Say which peer the cursor is on."""
        peer = self._peer()
        return Facts(pane=self.pane, on="peer" if peer else "", peer=peer)

    def go_to(self, peer: str) -> None:
        """Put the cursor on a peer."""
        peers = self.snapshot.status.peers if self.snapshot.status is not None else ()
        for index, status in enumerate(peers):
            if status.name == peer:
                self.table.move_to(index)
        self.table.focus()

    def do_connect(self) -> None:
        """Enable the peer and dial it."""
        peer = self._peer()
        if peer is not None:
            self.dashboard.ask(
                lambda api: api.peer_connect(peer.name), f"connecting {name(peer.name)}",
                done=f"dialling {name(peer.name)}" if peer.address else f"{name(peer.name)} may connect",
            )  # fmt: skip

    def do_disconnect(self) -> None:
        """Close the connection and refuse the peer."""
        peer = self._peer()
        if peer is not None:
            self.dashboard.ask(
                lambda api: api.peer_disconnect(peer.name), f"disconnecting {name(peer.name)}",
                done=f"{name(peer.name)} is disconnected, until you connect it again (c)",
            )  # fmt: skip

    def do_copy(self) -> None:
        """Copy the fingerprint."""
        peer = self._peer()
        if peer is not None:
            self.app.copy_to_clipboard(peer.fingerprint)
            self.dashboard.say(f"fingerprint of {name(peer.name)} copied: {name(peer.fingerprint)}")

    def do_details(self) -> None:
        """Show all that is known."""
        peer = self._peer()
        if peer is not None:
            self.app.push_screen(
                DetailsScreen(name(peer.name), rows.peer_details(peer, self.snapshot.now_ns))
            )

    def on_table_chosen(self, _: Table.Chosen) -> None:
        """A double click shows the details."""
        self.do_details()
