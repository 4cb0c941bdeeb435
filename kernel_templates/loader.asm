; kgen disk loader: reads itself and the kernel, checks both, looks whether there is memory enough, opens the A20 gate,
; puts the kernel where it belongs and starts it.
; Part of mbr.asm's unit, which has `fail`, `disk`, `reset`, `has_packets`, `start_lba`, `image_sum`, `drive`, `status`.
;
; Entry:    16-bit real mode at `loader` in segment 0, DS = ES = SS = 0, stack below 7C00, interrupts on, DF clear.
; Exit:     32-bit protected mode without paging at {{ "%X" % entry }}: flat 4 GiB segments (CS = 8, the others 16),
;           interrupts off, DF clear, A20 open, ESP = 7C00, EAX = {{ "%X" % eax_magic }} ("KGEN"), EDX = BIOS drive;
;           the kernel at {{ "%X" % load_address }}, zeros from its end to {{ "%X" % bss_end }}.
; Clobbers: everything else; memory from {{ "%X" % stage }} to at most {{ "%X" % stage_end }}, where the image is read to.
; Failure:  `fail`; "disk error" with the status of INT 13h, checksum with {{ "%02X" % error_sum }}, A20 with {{ "%02X" % error_a20 }},
;           memory with {{ "%02X" % error_memory }}.
;
; What is read comes in two pieces: boot sector and loader, {{ head_sectors }} units from `start_lba` on, then the kernel, {{ kernel_sectors }} units
; from {{ kernel_sector }} units after `start_lba` on; in memory, from {{ "%X" % stage }} on, one follows the other. Units are of 512 bytes;
; drives with larger sectors (2048 on a CD) are addressed in theirs by means of `sector_shift`, which is why all these
; numbers are multiples of {{ pad_sectors }}.

.equ STAGE_SEGMENT, {{ stage // 16 }}
.equ HEAD_SECTORS, {{ head_sectors }}
.equ KERNEL_SECTORS, {{ kernel_sectors }}
.equ KERNEL_SECTOR, {{ kernel_sector }}
.equ IMAGE_SECTORS, HEAD_SECTORS + KERNEL_SECTORS
.equ CHUNK_SECTORS, {{ chunk_sectors }}            ; a power of 2 that divides 64 KiB: no read crosses a DMA boundary
.equ LOAD_ADDRESS, {{ load_address }}
.equ BSS_END, {{ [bss_end, 0xFFFFFFFF] | min }}
.equ PORT_A, 0x92
.equ KBD_DATA, 0x60
.equ KBD_STATUS, 0x64
.equ DELAY, 0x80                    ; writing here takes about a microsecond

loader:
    ; The geometry, for drives without packets. Where the BIOS does not tell, CHS cannot be used.
    mov ah, 0x08
    xor di, di                      ; ES:DI = 0 guards against BIOS bugs
    mov dl, [drive]
    int 0x13
    mov [status], ah
    jc .packets
    and cx, 63
    mov [track_sectors], cx
    movzx cx, dh
    inc cx
    mov [heads], cx
.packets:
    call has_packets
    jc .read
    inc byte ptr [use_packets]
    mov ah, 0x48
    mov si, parameters
    call disk
    jc .read
    bsf cx, word ptr [si + 0x18]    ; bytes a sector; 0 where the BIOS leaves it out
    jz .read
    sub cl, 9
    js .read
    mov [sector_shift], cl
.read:
    mov eax, [start_lba]
    mov [lba], eax

    ; DI = units of the next read: up to the chunk boundary in memory, or all that are left.
.next:
    mov ax, [buffer_segment]
    shr ax, 5
    and ax, CHUNK_SECTORS - 1
    mov di, CHUNK_SECTORS
    sub di, ax
    cmp di, [left]
    jbe .retry
    mov di, [left]
.retry:
    mov bp, ATTEMPTS
.attempt:
    cmp byte ptr [use_packets], 0
    je .chs
    mov cl, [sector_shift]
    mov eax, [lba]
    shr eax, cl
    mov [read_lba], eax
    mov ax, di
    shr ax, cl
    mov [read_count], ax            ; set anew each time: a failed read changes it
    mov si, read_packet
    mov ah, 0x42
    jmp .call
.chs:
    movzx ecx, word ptr [track_sectors]
    test cx, cx
    jz .failed
    mov eax, [lba]
    xor edx, edx
    div ecx                         ; EAX = track, EDX = sector counted from 0
    sub cx, dx
    cmp di, cx
    jbe .in_track
    mov di, cx                      ; a read stays within its track
.in_track:
    inc dx
    mov si, dx
    xor dx, dx
    movzx ecx, word ptr [heads]
    div ecx                         ; EAX = cylinder, EDX = head
    mov dh, dl
    mov cx, si
    mov ch, al
    shl ah, 6
    or cl, ah
    mov es, [buffer_segment]
    xor bx, bx
    mov ax, di
    mov ah, 0x02
.call:
    call disk
    jnc .done
    call reset
    dec bp
    jnz .attempt
    mov al, 0
    xchg [use_packets], al          ; there are BIOSes whose packets do not work
    test al, al
    jnz .retry
.failed:
    mov al, [status]
    mov si, text_disk
    jmp fail
.done:
    movzx edi, di
    add [lba], edi
    mov ax, di
    shl ax, 5
    add [buffer_segment], ax
    sub [left], di
    jnz .next
    xor ax, ax
    xchg [kernel_left], ax          ; the second piece, once
    mov [left], ax
    mov ecx, [start_lba]
    add ecx, KERNEL_SECTOR
    mov [lba], ecx
    test ax, ax
    jnz .next

    ; The checksum covers all but the boot sector: for each dword, rotate left by one and add.
    mov bx, STAGE_SEGMENT + 512 / 16
    mov dx, IMAGE_SECTORS - 1
    xor ebp, ebp
.sector:
    mov ds, bx
    xor si, si
    mov cx, 512 / 4
.dword:
    lodsd
    rol ebp, 1
    add ebp, eax
    loop .dword
    add bx, 512 / 16
    dec dx
    jnz .sector
    mov ds, dx
    mov al, {{ error_sum }}
    mov si, text_sum
    cmp ebp, [image_sum]
    jne fail

    call enough_memory
    mov al, {{ error_memory }}
    mov si, text_memory
    jc fail

    call a20_is_open
    jne enter
    mov ax, 0x2401
    int 0x15
    call a20_is_open
    jne enter
    in al, PORT_A
    or al, 0x02
    and al, 0xFE                    ; bit 0 would reset the machine
    out PORT_A, al
    call a20_is_open
    jne enter
    cli                             ; the BIOS must not meddle
    call kbd_idle
    mov al, 0xD1                    ; write output port
    out KBD_STATUS, al
    call kbd_idle
    mov al, 0xDF                    ; all on, A20 too
    out KBD_DATA, al
    call kbd_idle
    mov al, 0xFF                    ; null command: some controllers act on the next one only
    out KBD_STATUS, al
    call kbd_idle
    sti
    call a20_is_open
    jne enter
    mov al, {{ error_a20 }}
    mov si, text_a20
    jmp fail

; Waits until the keyboard controller takes a byte, for 65536 delays at most. Clobbers AL, CX.
kbd_idle:
    xor cx, cx
.wait:
    out DELAY, al
    in al, KBD_STATUS
    test al, 0x02
    loopnz .wait
    ret

; Out: ZF = 0 when A20 is open. It is closed when the word 1 MiB above `probe` keeps following it; a slow gate is
; given {{ a20_tries }} delays to open. Clobbers AX, CX, ES.
a20_is_open:
    mov ax, 0xFFFF
    mov es, ax
    mov cx, {{ a20_tries }}
.look:
    inc word ptr [probe]
    out DELAY, al
    mov ax, es:[probe + 16]
    cmp ax, [probe]
    loope .look
    ret

; Out: CF = 1 when the BIOS says that memory up to the end of the kernel's bss is not there. A BIOS that answers none of
; the three questions is not held against the machine. Clobbers all general registers.
enough_memory:
    xor ax, ax
    mov es, ax
    mov dword ptr [cursor], LOAD_ADDRESS
    ; INT 15h, E820: ranges in any order. Each pass over them carries `cursor` to the end of what follows it.
.pass:
    mov byte ptr [moved], 0
    mov word ptr [ranges_left], 256 ; there may be BIOSes whose list never ends
    xor ebx, ebx
.range:
    mov eax, 0xE820
    mov edx, 0x534D4150             ; "SMAP"
    mov ecx, 20
    mov di, range
    int 0x15
    jc .passed                      ; after the last range, or not known at all
    cmp eax, 0x534D4150
    jne .no_ranges
    mov byte ptr [ranges], 1
    cmp dword ptr [range + 16], 1   ; memory for everybody
    jne .skip
    mov eax, [range]
    cmp dword ptr [range + 4], 0    ; begins above 4 GiB
    jne .skip
    cmp eax, [cursor]
    ja .skip
    add eax, [range + 8]
    mov edx, [range + 12]
    adc edx, 0
    jz .below
    or eax, -1
.below:
    cmp eax, [cursor]
    jbe .skip
    mov [cursor], eax
    mov byte ptr [moved], 1
.skip:
    dec word ptr [ranges_left]
    jz .passed
    test ebx, ebx
    jnz .range
.passed:
    cmp byte ptr [ranges], 0
    je .no_ranges
    cmp dword ptr [cursor], BSS_END
    jae .enough
    cmp byte ptr [moved], 0
    jne .pass
    stc
    ret

    ; INT 15h, E801: KiB between 1 and 16 MiB, and 64 KiB above; in AX and BX, by some BIOSes in CX and DX.
.no_ranges:
    xor cx, cx
    xor dx, dx
    mov ax, 0xE801
    int 0x15
    jc .old
    jcxz .in_ax
    mov ax, cx
    mov bx, dx
.in_ax:
    test ax, ax
    jz .old
    movzx ebx, bx
    shl ebx, 16
    cmp ax, 15 * 1024
    jae .sum                        ; no hole below 16 MiB: what is above follows
    xor ebx, ebx
    jmp .sum
    ; INT 15h, 88h: KiB above 1 MiB.
.old:
    xor ebx, ebx
    mov ah, 0x88
    int 0x15
    jc .enough
    test ax, ax
    jz .enough
.sum:
    movzx eax, ax
    shl eax, 10
    add eax, 0x100000
    add eax, ebx
    cmp eax, BSS_END
    ret                             ; CF = 1 when it is below
.enough:
    clc
    ret

enter:
    cli
    lgdt [gdt_pointer]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    ljmp32 8, protected

.code32
protected:
    mov eax, 16
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov esp, boot
    mov esi, {{ stage }} + 512 * HEAD_SECTORS
    mov edi, LOAD_ADDRESS
    mov ecx, {{ flat_bytes // 4 }}
    .byte 0xF3, 0xA5                ; REP MOVSD, whose mnemonic keystone keeps for SSE
    mov ecx, {{ flat_bytes % 4 }}
    rep movsb
    xor eax, eax
    mov ecx, {{ zero_bytes // 4 }}
    rep stosd
    mov ecx, {{ zero_bytes % 4 }}
    rep stosb
    movzx edx, byte ptr [drive]
    mov eax, {{ eax_magic }}
    mov ecx, {{ entry }}
    jmp ecx

    .align 8, 0
gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF        ; code, base 0, limit 4 GiB
    .quad 0x00CF93000000FFFF        ; data
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt

text_disk:
    .asciz "disk error "
text_sum:
    .asciz "image checksum error "
text_a20:
    .asciz "A20 gate stays closed, code "
text_memory:
    .asciz "needs {{ (bss_end + 0xFFFFF) // 0x100000 }} MiB of memory, code "

read_packet:
    .word 16
read_count:
    .word 0, 0
buffer_segment:
    .word STAGE_SEGMENT
read_lba:
    .quad 0
lba:
    .long 0
left:
    .word HEAD_SECTORS
kernel_left:
    .word KERNEL_SECTORS
track_sectors:
    .word 0
heads:
    .word 0
probe:
    .word 0
cursor:
    .long 0
range:
    .skip 20
ranges_left:
    .word 0
moved:
    .byte 0
ranges:
    .byte 0
use_packets:
    .byte 0
sector_shift:
    .byte 0
parameters:
    .word 0x1A                      ; bytes of the answer that we want
    .skip 0x18
    .align 4, 0
loader_id:
    .long IMAGE_ID
loader_end:
